"""Warm-up of unadjusted microcanonical sampling: step size, mass matrix and decoherence length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.autocorrelation import integrated_time
from pyro_bnn.infer.adaptation.energy_variance import EnergyVariance
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.schedule import window_ends
from pyro_bnn.infer.adaptation.warmup import StepSizeSearch
from pyro_bnn.infer.kernels.hamiltonian import Density, Info, metric_from_variance

__all__ = ["MicrocanonicalWarmup"]

_LENGTH_FACTOR = 0.4
_COORDINATES = 128
_LEAST_DRAWS = 10


class MicrocanonicalWarmup:
    """Tune by energy variance and autocorrelation, within the windows of Hamiltonian kernels.

    As in `Warmup` each chain has a step size of its own until the first window. After the last
    window positions are watched, at most 128 coordinates of them; at the end the decoherence
    length becomes 0.4 times the length of path between independent draws (Robnik et al. 2023).

    Parameters
    ----------
    num_steps : int
        Length of warm-up, in draws.
    adapt_step_size, adapt_length, adapt_mass_matrix : bool
        What to adapt.
    wanted : float
        Energy variance per dimension that the step size aims at.
    steps_per_draw : int
        Steps between two positions that are seen.
    find_step_size : callable
        The search for a first step size.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_length: bool,
        adapt_mass_matrix: bool,
        wanted: float,
        steps_per_draw: int,
        find_step_size: StepSizeSearch,
    ) -> None:
        self.num_steps = num_steps
        self.adapt_step_size = adapt_step_size
        self.adapt_length = adapt_length
        self.adapt_mass_matrix = adapt_mass_matrix
        self.wanted = wanted
        self.steps_per_draw = steps_per_draw
        self.find_step_size = find_step_size
        self.start, self.ends = window_ends(num_steps)
        self.energy: EnergyVariance | None = None
        self.variance: PooledVariance | None = None
        self.watched: list[Tensor] = []
        self.count = 0

    def begin(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        """Find first step sizes, one a chain."""
        self.variance = self._fresh(state)
        state = state._replace(step_size=state.step_size.expand(len(state.position)))
        return self._restart(state, density, generator)

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Learn from one draw of all chains; return the state to go on from."""
        self.count += 1
        state = self._adapt_step_size(state, info)
        if self.count == self.start:
            state = state._replace(step_size=state.step_size.nanmedian())
            if self.energy is not None:
                self.energy = EnergyVariance.start(state.step_size)
        if self.adapt_mass_matrix and self.ends:
            assert self.variance is not None
            if self.start < self.count <= self.ends[-1]:
                self.variance.update(state.position)
            if self.count in self.ends:
                state = state._replace(metric=metric_from_variance(self.variance.estimate()))
                self.variance = self._fresh(state)
                state = self._restart(state, density, generator)
        if self.adapt_length and self.ends and self.count > self.ends[-1]:
            self.watched.append(_few_coordinates(state.position))
            if self.count == self.num_steps:
                state = self._set_length(state)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        saved = {"warmup.count": torch.tensor(self.count)}
        if self.energy is not None:
            saved |= {f"warmup.energy.{n}": part for n, part in self.energy._asdict().items()}
        if self.variance is not None:
            saved["warmup.mean"] = self.variance.mean
            saved["warmup.squares"] = self.variance.squares
            saved["warmup.draws"] = self.variance.count
        if self.watched:
            saved["warmup.watched"] = torch.stack(self.watched)
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        self.count = int(saved["warmup.count"])
        if "warmup.energy.unit" in saved:
            names = EnergyVariance._fields
            self.energy = EnergyVariance(*(saved[f"warmup.energy.{n}"] for n in names))
        if "warmup.mean" in saved:
            self.variance = PooledVariance(
                saved["warmup.mean"], saved["warmup.squares"], saved["warmup.draws"]
            )
        self.watched = list(saved.get("warmup.watched", ()))

    def _fresh(self, state: Any) -> PooledVariance:
        return PooledVariance.like(state.position, dense=state.metric.inverse.ndim == 2)

    def _restart(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        if not self.adapt_step_size:
            return state
        step_size = self.find_step_size(state, density, generator)
        self.energy = EnergyVariance.start(step_size)
        return state._replace(step_size=step_size)

    def _adapt_step_size(self, state: Any, info: Info) -> Any:
        if self.energy is None:
            return state
        variance = info.stats["energy_variance"]
        if state.step_size.ndim == 0:
            variance = variance[~state.position.isnan().any(1)].mean()
        self.energy = self.energy.update(variance, self.wanted)
        return state._replace(step_size=self.energy.step_size)

    def _set_length(self, state: Any) -> Any:
        seen = torch.stack(self.watched)
        self.watched = []
        seen = seen[:, seen.isfinite().all(2).all(0)]
        if len(seen) < _LEAST_DRAWS or seen.shape[1] == 0:
            return state
        steps = self.steps_per_draw * integrated_time(seen).mean()
        return state._replace(length=_LENGTH_FACTOR * steps * state.step_size)


def _few_coordinates(position: Tensor) -> Tensor:
    """At most 128 coordinates, evenly spaced, of positions ``(chain, dim)``."""
    stride = -(-position.shape[1] // _COORDINATES)
    return position[:, ::stride]
