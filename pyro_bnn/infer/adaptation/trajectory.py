"""Warm-up of kernels with a trajectory length: step size, mass matrix and length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.adaptation.dual_averaging import DualAveraging
from pyro_bnn.infer.adaptation.first_step_size import StepSizeSearch
from pyro_bnn.infer.adaptation.trajectory_length import LengthAscent, chees_slope
from pyro_bnn.infer.adaptation.warmup import Warmup
from pyro_bnn.infer.kernels.hamiltonian import Density, Info

__all__ = ["TrajectoryWarmup"]

_FEW_STEPS = 2.0


class TrajectoryWarmup(Warmup):
    """Climb the ChEES criterion while step size and mass matrix adapt as in `Warmup`.

    While the chains have step sizes of their own the mean number of steps stays as it is; from
    then on it is learned, in every window from two steps up: the criterion has further tops
    beyond its first, a period of the motion apart. The paper centres the criterion on the mean
    over chains. The chains of a Bayesian network sit in different modes, so that here each is
    centred on its own running mean.

    Parameters
    ----------
    num_steps, adapt_step_size, adapt_mass_matrix, target_accept_prob
        As in `Warmup`; the acceptance rate that is driven to the target is a harmonic mean.
    adapt_num_steps : bool
        Whether to learn the length, as a mean number of steps.
    find_step_size : callable
        The search for a first step size.
    """

    def __init__(
        self,
        num_steps: int,
        *,
        adapt_step_size: bool,
        adapt_num_steps: bool,
        adapt_mass_matrix: bool,
        target_accept_prob: float,
        find_step_size: StepSizeSearch,
    ) -> None:
        super().__init__(
            num_steps,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            target_accept_prob=target_accept_prob,
            find_step_size=find_step_size,
        )
        self.adapt_num_steps = adapt_num_steps
        self.ascent: LengthAscent | None = None
        self.centre: Tensor | None = None

    def begin(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        """Find first step sizes and note where the chains start."""
        self.centre = state.position
        self.ascent = LengthAscent.begin(state.mean_steps)
        return super().begin(state, density, generator)

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Learn from one step of all chains; return the state to go on from."""
        if not self.adapt_num_steps:
            return super().update(state, info, density, generator)
        if self.count >= self.start:
            state = self._climb(state, info)
        state = super().update(state, info, density, generator)
        assert self.ascent is not None
        if self.count <= self.start:
            self.centre = state.position
        if not self.ends:
            return state
        if self.count == self.start or self.count in self.ends:
            few = torch.full_like(state.mean_steps, _FEW_STEPS)
            self.ascent = LengthAscent.begin(few)
            state = state._replace(mean_steps=few)
        elif self.count == self.num_steps:
            state = state._replace(mean_steps=self.ascent.log_averaged.exp())
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, as tensors."""
        saved = super().tensors()
        if self.centre is not None:
            saved["warmup.centre"] = self.centre
        if self.ascent is not None:
            saved |= {f"warmup.ascent.{n}": part for n, part in self.ascent._asdict().items()}
        return saved

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        super().load(saved)
        self.centre = saved.get("warmup.centre")
        if "warmup.ascent.updates" in saved:
            names = LengthAscent._fields
            self.ascent = LengthAscent(*(saved[f"warmup.ascent.{n}"] for n in names))

    def _tune_from(self, step_size: Tensor) -> DualAveraging:
        # Not drawn to ten times the step that one leapfrog step allows: a trajectory allows less.
        return DualAveraging.start(step_size)._replace(mu=step_size.log())

    def _pool(self, observed: Tensor) -> Tensor:
        # A chain that rejects everything pulls the harmonic mean down, but not to zero.
        return observed.clamp(min=0.1).reciprocal().nanmean().reciprocal()

    def _climb(self, state: Any, info: Info) -> Any:
        assert self.ascent is not None
        assert self.centre is not None
        assert info.trajectory is not None
        # Half of the weight is on the last third of the draws.
        weight = 3 / (self.count - self.start + 3)
        self.centre = self.centre + weight * (info.trajectory.start - self.centre)
        slope = chees_slope(
            info.trajectory, self.centre, state.metric, info.stats["acceptance_rate"]
        )
        self.ascent = self.ascent.climb(slope)
        return state._replace(mean_steps=self.ascent.log_steps.exp())
