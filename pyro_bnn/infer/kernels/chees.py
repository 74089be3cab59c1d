"""ChEES-HMC: the trajectory length learned across chains (Hoffman, Radul & Sountsov 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.trajectory import TrajectoryWarmup
from pyro_bnn.infer.adaptation.warmup import reasonable_step_size
from pyro_bnn.infer.kernels.hamiltonian import Density, Info
from pyro_bnn.infer.kernels.hamiltonian_kernel import HamiltonianKernel
from pyro_bnn.infer.kernels.hmc import metropolis_step
from pyro_bnn.infer.kernels.trajectory import TrajectoryState, count_steps
from pyro_bnn.logdensity import LogDensity

__all__ = ["ChEES"]


class ChEES(HamiltonianKernel):
    """Hamiltonian Monte Carlo whose trajectories are as long as the chains find useful.

    Warm-up climbs the change in the estimator of the expected square, the mean of
    ``(|q' - m|^2 - |q - m|^2)^2 / 4`` over chains, by stochastic gradient steps in the logarithm
    of the mean length. Lengths are spread evenly over (0, 2 T) for the mean T, and every chain
    makes the same number of leapfrog steps, so that none waits for another.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    num_steps : float
        Mean number of leapfrog steps of a trajectory, where the adaptation starts.
    adapt_step_size, adapt_num_steps, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the mass matrix is dense.
    target_accept_prob : float
        Acceptance rate, a harmonic mean over chains, that the step size aims at; 0.651 is the
        optimum of the paper.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.

    Raises
    ------
    UserError
        If an option is out of range; by `init`, if there is a single chain.
    """

    state_type = TrajectoryState
    max_steps = 1024
    """Leapfrog steps that a draw makes at most."""

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        num_steps: float = 10.0,
        adapt_step_size: bool = True,
        adapt_num_steps: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.651,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
            **pyro_only,
        )
        if num_steps < 1:
            raise UserError(f"ChEES: num_steps is {num_steps}, give at least 1")
        self.num_steps = num_steps
        self.adapt_num_steps = adapt_num_steps

    def init(
        self, position: Tensor, density: Density, generator: torch.Generator
    ) -> TrajectoryState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        if len(position) < 2:
            raise UserError(
                "ChEES learns the trajectory length across chains and has only one: "
                "give num_chains of at least 2, or use HMC"
            )
        state = super().init(position, density, generator)
        return TrajectoryState.start(state, self.num_steps)

    def step(
        self, state: TrajectoryState, density: Density, generator: torch.Generator
    ) -> tuple[TrajectoryState, Info]:
        """Refresh the momentum, follow a trajectory, accept or reject its end."""
        steps = count_steps(state, self.max_steps)
        new, info = metropolis_step(state, steps, density, generator)
        return new._replace(draws=new.draws + 1), info

    def warmup(self, num_steps: int) -> TrajectoryWarmup:
        """Return the adaptation of step size, length and mass matrix over `num_steps` steps."""
        return TrajectoryWarmup(
            num_steps,
            adapt_step_size=self.adapt_step_size,
            adapt_num_steps=self.adapt_num_steps,
            adapt_mass_matrix=self.adapt_mass_matrix,
            target_accept_prob=self.target_accept_prob,
            find_step_size=reasonable_step_size,
        )
