"""Warm-up of unadjusted microcanonical sampling: step size, mass matrix and decoherence length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.autocorrelation import integrated_time
from pyro_bnn.infer.adaptation.energy_variance import EnergyVariance
from pyro_bnn.infer.adaptation.first_step_size import StepSizeSearch
from pyro_bnn.infer.adaptation.windowed import WindowedWarmup
from pyro_bnn.infer.kernels.hamiltonian import Density, Info

__all__ = ["MicrocanonicalWarmup"]

_LENGTH_FACTOR = 0.4
_COORDINATES = 128
_LEAST_DRAWS = 10


class MicrocanonicalWarmup(WindowedWarmup):
    """Tune by energy variance and autocorrelation, within windows.

    After the last window positions are watched, at most 128 coordinates of them; at the end the
    decoherence length becomes 0.4 times the length of path between independent draws (Robnik et
    al. 2023).

    Parameters
    ----------
    num_steps, adapt_step_size, adapt_mass_matrix, find_step_size
        As in `WindowedWarmup`; steps are counted in draws.
    adapt_length : bool
        Whether to set the length.
    wanted : float
        Energy variance per dimension that the step size aims at.
    steps_per_draw : int
        Steps between two positions that are seen.
    """

    tuner_type = EnergyVariance
    statistic = "energy_variance"

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
        super().__init__(
            num_steps,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            wanted=wanted,
            find_step_size=find_step_size,
        )
        self.adapt_length = adapt_length
        self.steps_per_draw = steps_per_draw
        self.watched: list[Tensor] = []

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Learn from one draw of all chains; return the state to go on from."""
        state = super().update(state, info, density, generator)
        if self.adapt_length and self.ends and self.count > self.ends[-1]:
            self.watched.append(_few_coordinates(state.position))
            if self.count == self.num_steps:
                state = self._set_length(state)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        saved = super().tensors()
        if self.watched:
            saved["warmup.watched"] = torch.stack(self.watched)
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        super().load(saved)
        self.watched = list(saved.get("warmup.watched", ()))

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
