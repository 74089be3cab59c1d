"""Warm-up of a Hamiltonian kernel: step size and mass matrix, pooled over the chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.dual_averaging import DualAveraging
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.schedule import window_ends
from pyro_bnn.infer.kernels.hamiltonian import (
    Density,
    Info,
    State,
    leapfrog,
    metric_from_variance,
)

__all__ = ["Warmup", "reasonable_step_size"]


class Warmup:
    """Adapt the step size at every step and the mass matrix at the end of every window.

    Parameters
    ----------
    num_steps : int
        Length of warm-up.
    adapt_step_size, adapt_mass_matrix : bool
        What to adapt.
    target_accept_prob : float
        Acceptance rate that the step size aims at, a mean over chains.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        target_accept_prob: float,
    ) -> None:
        self.num_steps = num_steps
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.start, self.ends = window_ends(num_steps)
        self.averaging = DualAveraging(target_accept_prob)
        self.variance: PooledVariance | None = None
        self.count = 0

    def begin(
        self, state: State, density: Density, generator: torch.Generator
    ) -> State:
        """Find a first step size and start the averages."""
        self.variance = self._fresh(state)
        return self._restart(state, density, generator)

    def update(
        self,
        state: State,
        info: Info,
        density: Density,
        generator: torch.Generator,
    ) -> State:
        """Learn from one step of all chains; return the state to go on from."""
        self.count += 1
        if self.adapt_step_size:
            acceptance = float(info.stats["acceptance_rate"].mean())
            state = _with_step_size(state, self.averaging.update(acceptance))
        if self.adapt_mass_matrix and self.ends:
            assert self.variance is not None
            if self.start < self.count <= self.ends[-1]:
                self.variance.update(state.position)
            if self.count in self.ends:
                state = state._replace(metric=metric_from_variance(self.variance.estimate()))
                self.variance = self._fresh(state)
                state = self._restart(state, density, generator)
        if self.count == self.num_steps and self.adapt_step_size:
            state = _with_step_size(state, self.averaging.averaged)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        averaging = self.averaging
        numbers = [averaging.mu, averaging.log_step, averaging.log_averaged, averaging.error]
        saved = {
            "warmup.averaging": torch.tensor(numbers, dtype=torch.float64),
            "warmup.counts": torch.tensor([averaging.count, self.count]),
        }
        if self.variance is not None:
            saved["warmup.mean"] = self.variance.mean
            saved["warmup.squares"] = self.variance.squares
            saved["warmup.draws"] = torch.tensor(self.variance.count)
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        averaging = self.averaging
        averaging.mu, averaging.log_step, averaging.log_averaged, averaging.error = saved[
            "warmup.averaging"
        ].tolist()
        averaging.count, self.count = saved["warmup.counts"].tolist()
        if "warmup.mean" in saved:
            self.variance = PooledVariance(
                saved["warmup.mean"], saved["warmup.squares"], int(saved["warmup.draws"])
            )

    def _fresh(self, state: State) -> PooledVariance:
        return PooledVariance.like(state.position, dense=state.metric.inverse.ndim == 2)

    def _restart(self, state: State, density: Density, generator: torch.Generator) -> State:
        if not self.adapt_step_size:
            return state
        state = _with_step_size(state, reasonable_step_size(state, density, generator))
        self.averaging.restart(float(state.step_size))
        return state


def reasonable_step_size(state: State, density: Density, generator: torch.Generator) -> float:
    """Double or halve the step size until one leapfrog step is accepted 80 % of the time.

    The heuristic of Hoffman & Gelman 2014, algorithm 4, with the mean over chains for the
    acceptance rate and Stan's 0.8 for its threshold.
    """
    momentum = state.metric.draw_momentum(state.position, generator)
    start = state.potential + state.metric.kinetic_energy(momentum)
    step_size = float(state.step_size)
    direction = 0
    for _ in range(60):
        _, moved, potential, _ = leapfrog(
            state.position,
            momentum,
            state.gradient,
            density,
            state.step_size.new_tensor(step_size),
            state.metric,
        )
        rise = potential + state.metric.kinetic_energy(moved) - start
        acceptance = float(torch.exp(-torch.nan_to_num(rise, nan=math.inf)).clamp(max=1).mean())
        wanted = 1 if acceptance > 0.8 else -1
        if direction and wanted != direction:
            break
        direction = wanted
        step_size *= 2.0**direction
    return step_size


def _with_step_size(state: State, step_size: float) -> State:
    return state._replace(step_size=state.step_size.new_tensor(step_size))
