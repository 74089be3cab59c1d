"""Hamiltonian Monte Carlo with a fixed or jittered trajectory (Duane et al. 1987; Neal 2011)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.hamiltonian import (
    Density,
    Info,
    State,
    Trajectory,
    leapfrog,
)
from pyro_bnn.infer.kernels.hamiltonian_kernel import HamiltonianKernel
from pyro_bnn.infer.kernels.metropolis import accept_or_reject
from pyro_bnn.infer.kernels.trajectory import TrajectoryState
from pyro_bnn.logdensity import LogDensity

__all__ = ["HMC", "metropolis_step"]

AnyState = TypeVar("AnyState", State, TrajectoryState)


class HMC(HamiltonianKernel):
    """Hamiltonian Monte Carlo over a batch of chains.

    Every chain makes the same number of leapfrog steps in a draw, so that a draw of all chains is
    a plain loop of batched gradients, without a word between device and host.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    trajectory_length : float, optional
        Time that a trajectory takes, in units of the metric; 2 pi by default, as in Pyro. The
        number of steps follows from the step size.
    num_steps : int, optional
        Number of leapfrog steps instead. It stays as it is while the step size adapts.
    jitter : float
        Each draw's number of steps is uniform within ``(1 - jitter, 1 + jitter)`` times the
        number above, the same for all chains, so that no direction resonates.
    adapt_step_size, adapt_mass_matrix, full_mass, target_accept_prob, init_strategy
        As in `pyro.infer.HMC`.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro_bnn.infer import HMC, MCMC
    >>> def model():
    ...     pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    >>> mcmc = MCMC(HMC(model, num_steps=8), num_samples=50, num_chains=4, disable_progbar=True)
    >>> mcmc.run()
    >>> mcmc.get_samples(group_by_chain=True)["x"].shape
    torch.Size([4, 50, 2])
    """

    max_steps = 1024
    """Leapfrog steps that a draw makes at most where the step size is being found."""

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        trajectory_length: float | None = None,
        num_steps: int | None = None,
        jitter: float = 0.0,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.8,
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
        if trajectory_length is not None and num_steps is not None:
            raise UserError("HMC: give trajectory_length or num_steps, not both")
        if trajectory_length is not None and trajectory_length <= 0:
            raise UserError(f"HMC: trajectory_length is {trajectory_length}, give a number > 0")
        if num_steps is not None and num_steps < 1:
            raise UserError(f"HMC: num_steps is {num_steps}, give at least 1")
        if not 0 <= jitter < 1:
            raise UserError(f"HMC: jitter is {jitter}, give a number in [0, 1)")
        self.trajectory_length = 2 * math.pi if trajectory_length is None else trajectory_length
        self.num_steps = num_steps
        self.jitter = jitter

    def step(
        self, state: State, density: Density, generator: torch.Generator
    ) -> tuple[State, Info]:
        """Refresh the momentum, follow a trajectory, accept or reject its end."""
        return metropolis_step(state, self._draw_num_steps(state, generator), density, generator)

    def _draw_num_steps(self, state: State, generator: torch.Generator) -> int:
        steps = float(self.num_steps or 0) or self.trajectory_length / float(
            state.step_size.median()
        )
        if self.jitter:
            uniform = torch.rand((), device=generator.device, generator=generator)
            steps *= 1 + self.jitter * (2 * float(uniform) - 1)
        # A step size that was given is meant, however many steps it asks for.
        limit = self.max_steps if self.adapt_step_size else math.inf
        return int(min(max(1, round(steps)), limit))


def metropolis_step(
    state: AnyState, steps: int, density: Density, generator: torch.Generator
) -> tuple[AnyState, Info]:
    """Refresh the momentum, make `steps` leapfrog steps, accept or reject where they lead.

    Parameters
    ----------
    state : NamedTuple
        A `State`, or one that has its fields among others.
    steps : int
        Leapfrog steps, the same for all chains.
    density, generator
        As `Kernel.step` takes them.
    """
    momentum = state.metric.draw_momentum(state.position, generator)
    start = state.potential + state.metric.kinetic_energy(momentum)

    position, potential, gradient = state.position, state.potential, state.gradient
    for _ in range(steps):
        position, momentum, potential, gradient = leapfrog(
            position, momentum, gradient, density, state.step_size, state.metric
        )
    rise = potential + state.metric.kinetic_energy(momentum) - start
    end = position, potential, gradient
    new, accepted, stats = accept_or_reject(state, end, rise, steps, generator)
    stats["energy"] = torch.where(accepted, start + rise, start)
    velocity = state.metric.velocity(momentum)
    trajectory = Trajectory(state.position, position, velocity, steps * stats["step_size"])
    return new, Info(stats, steps, trajectory)
