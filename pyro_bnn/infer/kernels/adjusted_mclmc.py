"""Metropolis-adjusted microcanonical sampling (Robnik, Cohn-Gordon & Seljak 2025)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.first_step_size import acceptance_of, search_step_size
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, Trajectory
from pyro_bnn.infer.kernels.isokinetic import (
    GRADIENTS_PER_STEP,
    draw_direction,
    isokinetic_step,
    refuse_one_dimension,
    spread,
)
from pyro_bnn.infer.kernels.metropolis import accept_or_reject
from pyro_bnn.infer.kernels.trajectory import TrajectoryState, count_steps
from pyro_bnn.infer.kernels.trajectory_kernel import TrajectoryKernel
from pyro_bnn.logdensity import LogDensity

__all__ = ["AdjustedMCLMC"]


class AdjustedMCLMC(TrajectoryKernel):
    """Isokinetic trajectories of random length, each from a fresh direction, accepted or rejected.

    The change of potential and kinetic energy along a trajectory takes the place of the error of
    the Hamiltonian, which makes the posterior exactly invariant. The paper sets the length from
    autocorrelations; here it is learned across chains by the ChEES criterion, as in `ChEES`, and
    lengths are spread evenly over (0, 2 L) for the mean length L.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model with at least two latent numbers.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    num_steps : float
        Mean number of steps of a trajectory, of two gradients each, where the adaptation starts.
    adapt_step_size, adapt_num_steps, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the preconditioner is dense.
    target_accept_prob : float
        Acceptance rate, a harmonic mean over chains, that the step size aims at.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.

    Raises
    ------
    UserError
        If an option is out of range; by `init`, if there is only one latent number.
    """

    max_steps = 512
    """Steps that a draw makes at most."""

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        num_steps: float = 5.0,
        *,
        target_accept_prob: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(
            model, step_size, num_steps, target_accept_prob=target_accept_prob, **options
        )

    def init(
        self, position: Tensor, density: Density, generator: torch.Generator
    ) -> TrajectoryState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        refuse_one_dimension(position, "AdjustedMCLMC")
        return super().init(position, density, generator)

    def step(
        self, state: TrajectoryState, density: Density, generator: torch.Generator
    ) -> tuple[TrajectoryState, Info]:
        """Draw a direction, follow a trajectory, accept or reject its end."""
        steps = count_steps(state, self.max_steps)
        root = state.metric.unwhitening()
        direction = draw_direction(state.position, generator)
        position, potential, gradient = state.position, state.potential, state.gradient
        rise = -potential
        for _ in range(steps):
            position, direction, potential, gradient, kinetic = isokinetic_step(
                position, direction, gradient, density, state.step_size, root
            )
            rise = rise + kinetic
        end = position, potential, gradient
        new, _, stats = accept_or_reject(state, end, rise + potential, steps, generator)
        new = new._replace(draws=state.draws + 1)
        velocity = spread(direction, root)
        trajectory = Trajectory(state.position, position, velocity, steps * stats["step_size"])
        return new, Info(stats, GRADIENTS_PER_STEP * steps, trajectory)

    def _find_step_size(self, state: Any, density: Density, generator: torch.Generator) -> Tensor:
        """Double or halve step sizes until one isokinetic step is accepted 80 % of the time."""
        direction = draw_direction(state.position, generator)
        root = state.metric.unwhitening()

        def rate(step_size: Tensor) -> Tensor:
            _, _, potential, _, kinetic = isokinetic_step(
                state.position, direction, state.gradient, density, step_size, root
            )
            return acceptance_of(potential - state.potential + kinetic, state.potential)

        return search_step_size(state.step_size, rate)
