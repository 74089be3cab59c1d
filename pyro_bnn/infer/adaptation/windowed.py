"""What every warm-up shares: windows, the mass matrix, and step sizes, first one a chain."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.first_step_size import StepSizeSearch
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.schedule import window_ends
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, metric_from_variance

__all__ = ["Tuner", "WindowedWarmup"]


class Tuner(Protocol):
    """A NamedTuple of tensors that learns step sizes, each a scalar or one a chain."""

    @classmethod
    def start(cls, step_size: Tensor) -> Self:
        """Begin from step sizes."""
        ...

    def update(self, observed: Tensor, wanted: float) -> Self:
        """Take in what the last step showed."""
        ...

    @property
    def current(self) -> Tensor:
        """The step size to try next."""
        ...

    @property
    def settled(self) -> Tensor:
        """The step size to keep."""
        ...


class WindowedWarmup:
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
    wanted : float
        Value of the `statistic` that the step size aims at.
    find_step_size : callable
        The search for a first step size.
    """

    tuner_type: Any
    """The `Tuner` that learns the step size."""
    statistic: str
    """What of `Info.stats` it learns from."""

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        wanted: float,
        find_step_size: StepSizeSearch,
    ) -> None:
        self.num_steps = num_steps
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.wanted = wanted
        self.find_step_size = find_step_size
        self.start, self.ends = window_ends(num_steps)
        self.tuner: Tuner | None = None
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
        if self.count == self.start:
            state = self._share_step_size(state)
        if self.adapt_mass_matrix and self.ends:
            assert self.variance is not None
            if self.start < self.count <= self.ends[-1]:
                self.variance.update(state.position)
            if self.count in self.ends:
                state = state._replace(metric=metric_from_variance(self.variance.estimate()))
                self.variance = self._fresh(state)
                state = self._restart(state, density, generator)
        if self.count == self.num_steps and self.tuner is not None:
            state = state._replace(step_size=self.tuner.settled)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        saved = {"warmup.count": torch.tensor(self.count)}
        if self.tuner is not None:
            parts = {name: getattr(self.tuner, name) for name in self.tuner_type._fields}
            saved |= {f"warmup.tuner.{name}": part for name, part in parts.items()}
        if self.variance is not None:
            saved["warmup.mean"] = self.variance.mean
            saved["warmup.squares"] = self.variance.squares
            saved["warmup.draws"] = self.variance.count
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        self.count = int(saved["warmup.count"])
        if any(name.startswith("warmup.tuner.") for name in saved):
            fields = self.tuner_type._fields
            self.tuner = self.tuner_type(*(saved[f"warmup.tuner.{name}"] for name in fields))
        if "warmup.mean" in saved:
            self.variance = PooledVariance(
                saved["warmup.mean"], saved["warmup.squares"], saved["warmup.draws"]
            )

    def _pool(self, observed: Tensor) -> Tensor:
        """One value of all chains: of ``(chain,)``, where a NaN says nothing."""
        return observed.nanmean()

    def _tune_from(self, step_size: Tensor) -> Tuner:
        tuner: Tuner = self.tuner_type.start(step_size)
        return tuner

    def _fresh(self, state: Any) -> PooledVariance:
        return PooledVariance.like(state.position, dense=state.metric.inverse.ndim == 2)

    def _adapt_step_size(self, state: Any, info: Info) -> Any:
        if self.tuner is None:
            return state
        dead = state.position.isnan().any(1)
        observed = info.stats[self.statistic].masked_fill(dead, torch.nan)
        if state.step_size.ndim == 0:
            observed = self._pool(observed)
        self.tuner = self.tuner.update(observed, self.wanted)
        return state._replace(step_size=self.tuner.current)

    def _share_step_size(self, state: Any) -> Any:
        """Go on with the median over chains."""
        own = state.step_size if self.tuner is None else self.tuner.settled
        shared = own.nanmedian()
        if self.tuner is not None:
            self.tuner = self._tune_from(shared)
        return state._replace(step_size=shared)

    def _restart(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        if not self.adapt_step_size:
            return state
        step_size = self.find_step_size(state, density, generator)
        self.tuner = self._tune_from(step_size)
        return state._replace(step_size=step_size)
