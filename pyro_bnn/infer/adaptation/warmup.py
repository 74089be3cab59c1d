"""Warm-up of a Hamiltonian kernel: step sizes and the mass matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.dual_averaging import DualAveraging
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.schedule import window_ends
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, leapfrog, metric_from_variance

__all__ = [
    "StepSizeSearch",
    "Warmup",
    "acceptance_of",
    "reasonable_step_size",
    "search_step_size",
]

StepSizeSearch = Callable[[Any, Density, torch.Generator], Tensor]
"""From a state to step sizes of the same shape."""


class Warmup:
    """Adapt the step size at every step and the mass matrix at the end of every window.

    In the first phase each chain has a step size of its own. A draw from the prior may lie where
    the likelihood is steeper by orders of magnitude than where the other chains are, and there a
    shared step size would leave it stuck. From the first window on the chains share one, and
    what they learn is pooled.

    Parameters
    ----------
    num_steps : int
        Length of warm-up.
    adapt_step_size, adapt_mass_matrix : bool
        What to adapt.
    target_accept_prob : float
        Acceptance rate that the step size aims at; once it is shared, a mean over chains.
    find_step_size : callable, optional
        The search for a first step size; `reasonable_step_size` by default.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        target_accept_prob: float,
        find_step_size: StepSizeSearch | None = None,
    ) -> None:
        self.num_steps = num_steps
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.target = target_accept_prob
        self.find_step_size = find_step_size or reasonable_step_size
        self.start, self.ends = window_ends(num_steps)
        self.averaging: DualAveraging | None = None
        self.variance: PooledVariance | None = None
        self.count = 0

    def begin(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        """Find first step sizes, one a chain, and start the averages."""
        self.variance = self._fresh(state)
        state = state._replace(step_size=state.step_size.expand(len(state.position)))
        return self._restart(state, density, generator)

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Learn from one step of all chains; return the state to go on from."""
        self.count += 1
        state = self._adapt_step_size(state, info)
        if self.count == self.start or (self.count == self.num_steps and not self.ends):
            state = self._share_step_size(state)
        if self.adapt_mass_matrix and self.ends:
            assert self.variance is not None
            if self.start < self.count <= self.ends[-1]:
                self.variance.update(state.position)
            if self.count in self.ends:
                state = state._replace(metric=metric_from_variance(self.variance.estimate()))
                self.variance = self._fresh(state)
                state = self._restart(state, density, generator)
        if self.count == self.num_steps and self.averaging is not None:
            state = state._replace(step_size=self.averaging.log_averaged.exp())
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        saved = {"warmup.count": torch.tensor(self.count)}
        if self.averaging is not None:
            parts = self.averaging._asdict().items()
            saved |= {f"warmup.averaging.{name}": part for name, part in parts}
        if self.variance is not None:
            saved["warmup.mean"] = self.variance.mean
            saved["warmup.squares"] = self.variance.squares
            saved["warmup.draws"] = self.variance.count
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        self.count = int(saved["warmup.count"])
        if "warmup.averaging.mu" in saved:
            names = DualAveraging._fields
            self.averaging = DualAveraging(*(saved[f"warmup.averaging.{n}"] for n in names))
        if "warmup.mean" in saved:
            self.variance = PooledVariance(
                saved["warmup.mean"], saved["warmup.squares"], saved["warmup.draws"]
            )

    def _averaging(self, step_size: Tensor) -> DualAveraging:
        return DualAveraging.start(step_size)

    def _pool(self, acceptance: Tensor) -> Tensor:
        """One acceptance rate of all chains."""
        return acceptance.nanmean()

    def _fresh(self, state: Any) -> PooledVariance:
        return PooledVariance.like(state.position, dense=state.metric.inverse.ndim == 2)

    def _adapt_step_size(self, state: Any, info: Info) -> Any:
        if self.averaging is None:
            return state
        acceptance = info.stats["acceptance_rate"]
        if state.step_size.ndim == 0:
            acceptance = self._pool(acceptance)
        self.averaging = self.averaging.update(acceptance, self.target)
        return state._replace(step_size=self.averaging.log_step.exp())

    def _share_step_size(self, state: Any) -> Any:
        """Go on with the median over chains."""
        state = state._replace(step_size=state.step_size.nanmedian())
        if self.averaging is not None:
            shared = self.averaging.log_averaged.exp().nanmedian()
            state = state._replace(step_size=shared)
            self.averaging = self._averaging(shared)
        return state

    def _restart(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        if not self.adapt_step_size:
            return state
        step_size = self.find_step_size(state, density, generator)
        self.averaging = self._averaging(step_size)
        return state._replace(step_size=step_size)


def reasonable_step_size(state: Any, density: Density, generator: torch.Generator) -> Tensor:
    """Double or halve step sizes until one leapfrog step is accepted 80 % of the time.

    The heuristic of Hoffman & Gelman 2014, algorithm 4, with Stan's threshold of 0.8.

    Returns
    -------
    Tensor
        Of the shape of ``state.step_size``: for each chain, or for the mean over chains.
    """
    momentum = state.metric.draw_momentum(state.position, generator)
    start = state.potential + state.metric.kinetic_energy(momentum)

    def rate(step_size: Tensor) -> Tensor:
        _, moved, potential, _ = leapfrog(
            state.position, momentum, state.gradient, density, step_size, state.metric
        )
        return acceptance_of(potential + state.metric.kinetic_energy(moved) - start, start)

    return search_step_size(state.step_size, rate)


def acceptance_of(rise: Tensor, start: Tensor) -> Tensor:
    """Return acceptance rates ``(chain,)``; NaN for a chain that is NaN before it moves."""
    acceptance = torch.exp(-torch.nan_to_num(rise, nan=torch.inf)).clamp(max=1)
    return torch.where(start.isnan(), torch.nan, acceptance)


def search_step_size(step_size: Tensor, rate: Callable[[Tensor], Tensor]) -> Tensor:
    """Double or halve step sizes until the rate of success crosses 80 %.

    Parameters
    ----------
    step_size : Tensor
        Where to start: ``(chain,)``, or a scalar, for the mean over chains.
    rate : callable
        From step sizes to rates ``(chain,)`` that fall with the step; a NaN says nothing.
    """
    direction = torch.zeros_like(step_size)
    settled = torch.zeros_like(step_size, dtype=torch.bool)
    for _ in range(60):
        success = rate(step_size) if step_size.ndim else rate(step_size).nanmean()
        wanted = torch.where(success > 0.8, 1.0, -1.0).to(step_size)
        settled = settled | ((direction != 0) & (wanted != direction))
        if bool(settled.all()):
            break
        direction = torch.where(settled, direction, wanted)
        step_size = torch.where(settled, step_size, step_size * 2**direction)
    return step_size
