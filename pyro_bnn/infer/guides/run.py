"""Fit a guide and stream its draws to a run directory, to be resumed at any moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.checkpoint import Progress
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.fitting import Fitting
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.loading import in_steps
from pyro_bnn.infer.guides.seeds import draw_seed, generators
from pyro_bnn.trace import SegmentWriter, discard_segments, segment_paths

__all__ = ["GuideRun"]


class GuideRun:
    """What `MCMC` is to a kernel: a chain is a member, its draws are the member's samples.

    Members are trained block by block, and drawn from block by block: neither the states nor the
    draws of more than one block are in memory, however many members there are. What is left of
    the training is in the run directory, in ``members/``.

    Beside the draws stand ``lp``, the log posterior density in unconstrained space up to a
    constant, and where the guide has a density ``log_q``, its log density at the draw: their
    difference is the log importance ratio.

    Parameters
    ----------
    guide : Guide
        What to fit, around a `LogDensity` or a model.
    num_samples : int
        Draws of each member.
    run_dir : path
        Where the state and the segments go.
    seed : int
        Of the first member.
    dims : mapping of str to sequence of str, optional
        Names of the axes of each site.
    segment_draws : int
        Draws of a segment.
    """

    def __init__(
        self,
        guide: Guide,
        num_samples: int,
        run_dir: str | Path,
        *,
        seed: int = 0,
        dims: Mapping[str, Sequence[str]] | None = None,
        segment_draws: int = 50,
    ) -> None:
        if num_samples < 1 or segment_draws < 1:
            raise UserError("GuideRun: num_samples and segment_draws have to be at least 1")
        self.guide = guide
        self.num_samples = num_samples
        self.directory = Path(run_dir)
        self.seed = seed
        self.progress = Progress()
        self._dims = dims
        self._segment_draws = segment_draws

    def run(self, *, resume: bool = False) -> None:
        """Fit what is not fitted yet, then draw the segments that are missing."""
        started = time.perf_counter()
        guide = self.guide
        density = guide.setup()
        found = Fitting(guide, density, self.seed, self.directory, save_every=10).run(resume=resume)
        guide.take(found)
        fitted = time.perf_counter()
        self.progress.seconds_warmup = fitted - started
        self.progress.gradients = round(self.guide.gradients / self.guide.size)
        writer = SegmentWriter(self.directory, self._dims)
        whole = len(segment_paths(self.directory))
        discard_segments(self.directory, whole)  # what a killed writer left half-written
        starts = range(0, self.num_samples, self._segment_draws)
        places = {member: chain for chain, member in enumerate(found.members)}
        for number, part in enumerate(found.parts):
            if (number + 1) * len(starts) <= whole:
                continue
            state = part.load(density.device)
            chains = None if len(found.parts) == 1 else [places[m] for m in part.members]
            for place, start in enumerate(starts):
                count = min(self._segment_draws, self.num_samples - start)
                index = number * len(starts) + place
                if index >= whole:
                    drawn = self._segment(place, count, state, part.seeds)
                    writer.write(index, drawn, start, chains)
        self.progress.segments = len(found.parts) * len(starts)
        self.progress.draws = self.num_samples
        self.progress.seconds_sampling = time.perf_counter() - fitted

    def _segment(
        self, place: int, count: int, state: Parameters, seeds: Sequence[int]
    ) -> dict[str, dict[str, Tensor]]:
        """Draw some members' segment; its random numbers depend on nothing but seed and place."""
        guide = self.guide
        density = in_steps(guide.density, guide.training.batch_size)
        sources = generators([draw_seed(seed, place) for seed in seeds], guide.density.device)
        with torch.no_grad():
            position = guide.draw(state, count, sources)
            posterior = guide.constrain(position)
            energy = [
                density.potential(column, None, {n: v[:, draw] for n, v in posterior.items()})
                for draw, column in enumerate(position.unbind(1))
            ]
            stats = {"lp": -torch.stack(energy, 1)}
            if guide.has_density:
                stats["log_q"] = guide.log_prob(state, position)
        return {"posterior": posterior, "sample_stats": stats}
