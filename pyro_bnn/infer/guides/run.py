"""Fit a guide and stream its draws to a run directory, to be resumed at any moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.checkpoint import Progress
from pyro_bnn.infer.guides.guide import Guide
from pyro_bnn.infer.guides.seeds import draw_seed, generators
from pyro_bnn.trace import SegmentWriter, discard_segments, segment_paths

__all__ = ["GuideRun"]


class GuideRun:
    """What `MCMC` is to a kernel: a chain is a member, its draws are the member's samples.

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
        self.guide.fit(seed=self.seed, run_dir=self.directory, resume=resume)
        fitted = time.perf_counter()
        self.progress.seconds_warmup = fitted - started
        self.progress.gradients = round(self.guide.gradients / self.guide.size)
        writer = SegmentWriter(self.directory, self._dims)
        whole = len(segment_paths(self.directory))
        discard_segments(self.directory, whole)  # what a killed writer left half-written
        for index, start in enumerate(range(0, self.num_samples, self._segment_draws)):
            count = min(self._segment_draws, self.num_samples - start)
            if index >= whole:
                writer.write(index, self._segment(index, count), start)
            self.progress.segments += 1
            self.progress.draws += count
        self.progress.seconds_sampling = time.perf_counter() - fitted

    def _segment(self, index: int, count: int) -> dict[str, dict[str, Tensor]]:
        """Draw segment `index`; its random numbers depend on nothing but its place."""
        guide = self.guide
        seeds = [draw_seed(seed, index) for seed in guide.seeds]
        state = guide.state
        with torch.no_grad():
            position = guide.draw(state, count, generators(seeds, guide.density.device))
            energy = [guide.density.potential(column) for column in position.unbind(1)]
            stats = {"lp": -torch.stack(energy, 1)}
            if guide.has_density:
                stats["log_q"] = guide.log_prob(state, position)
        return {"posterior": guide.constrain(position), "sample_stats": stats}
