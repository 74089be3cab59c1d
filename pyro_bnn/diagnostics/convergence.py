"""R-hat, ESS and Monte-Carlo error in three spaces: weights, canonical weights and functions.

Draws are loaded a chunk of scalars at a time, so that memory grows neither with the network nor
with the number of draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather, random_scalars
from pyro_bnn.diagnostics.rank_statistics import rank_statistics

Space = Literal["weight", "canonical", "function", "null"]
SPACES: tuple[Space, ...] = ("weight", "canonical", "function")
_GROUPS = {
    "weight": "posterior",
    "canonical": "canonical_posterior",
    "null": "canonical_prior",
}
MAX_SCALARS = 1_000
SUBSET_SEED = 0

_BATCH = 2**18  # numbers per batch of scalars: 2 MiB in float64, with some twenty temporaries

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Convergence:
    """Convergence of the scalars of one space.

    Attributes
    ----------
    space
        ``"weight"``, ``"canonical"``, ``"function"`` or ``"null"``.
    total
        Scalars in the space; where it exceeds ``len(rhat)``, those were drawn at random.
    seed
        Seed of that draw.
    chains, draws
        Size of the sample behind each statistic.
    labels
        Name of each scalar, such as ``0.weight[3, 17]``.
    rhat
        Rank-normalised split R-hat, shape ``(scalar,)``; NaN where it is not defined.
    ess_bulk, ess_tail
        Effective sample sizes, shape ``(scalar,)``; NaN where they are not defined.
    mcse
        Monte-Carlo standard error of the mean, shape ``(scalar,)``; NaN where it is not defined.
    deviation
        Standard deviation of the draws, shape ``(scalar,)``; NaN where one is not finite.
    constant
        Names of scalars whose draws are all one value.
    nonfinite
        Names of scalars with a draw that is NaN or infinite.
    """

    space: Space
    total: int
    seed: int
    chains: int
    draws: int
    labels: tuple[str, ...]
    rhat: Array
    ess_bulk: Array
    ess_tail: Array
    mcse: Array
    deviation: Array
    constant: tuple[str, ...]
    nonfinite: tuple[str, ...]

    @property
    def is_subset(self) -> bool:
        """Whether the scalars are a random subset of the space."""
        return len(self.labels) < self.total

    @property
    def relative_mcse(self) -> Array:
        """Monte-Carlo error of the mean in standard deviations of the draws, ``(scalar,)``."""
        return self.mcse / np.where(self.deviation > 0, self.deviation, np.nan)

    def worst(self, count: int) -> list[int]:
        """Positions of the scalars of highest R-hat, worst first (lowest ESS for one chain)."""
        badness = self.rhat if np.isfinite(self.rhat).any() else -self.ess_bulk
        order = np.argsort(np.where(np.isnan(badness), -np.inf, badness))[::-1]
        return [int(i) for i in order[:count] if not math.isnan(badness[i])]


def convergence(
    trace: xr.DataTree,
    space: Space,
    max_scalars: int = MAX_SCALARS,
    seed: int = SUBSET_SEED,
) -> Convergence | None:
    """Compute R-hat, ESS and MCSE of the scalars of one space.

    Parameters
    ----------
    trace
        A trace with the group ``posterior``, ``canonical_posterior``, ``predictions`` or
        ``canonical_prior``.
    space
        Which of them: ``"weight"``, ``"canonical"``, ``"function"`` (the log predictive density
        of each test input) or ``"null"`` (draws of the prior, put through the same quotient).
    max_scalars
        Above this many scalars, a random subset of this size. For one seed it holds the same
        weights in ``"weight"`` and ``"canonical"``.
    seed
        Seed of the subset.

    Returns
    -------
    Convergence or None
        None if the trace lacks the group.
    """
    group = group_of(trace, space)
    if group is None:
        return None
    shapes = {str(name): group[name].transpose("chain", "draw", ...).shape[2:] for name in group}
    total = sum(math.prod(shape) for shape in shapes.values())
    picks = random_scalars(group, max_scalars, seed)
    labels: list[str] = []
    parts: list[Array] = []
    constant: list[str] = []
    nonfinite: list[str] = []
    for name, index, values in gather(group, picks):
        new = [_label(name, shapes[name], int(i)) for i in index]
        step = max(1, _BATCH // max(1, math.prod(values.shape[1:])))
        for start in range(0, len(index), step):
            part = values[start : start + step].astype(np.float64)
            names = new[start : start + step]
            finite = np.asarray(np.isfinite(part).all(axis=(1, 2)))
            still = finite & np.equal(part.max(axis=(1, 2)), part.min(axis=(1, 2)))
            nonfinite += [label for label, yes in zip(names, ~finite, strict=True) if yes]
            constant += [label for label, yes in zip(names, still, strict=True) if yes]
            results = np.full((5, len(part)), np.nan)
            moving = finite & ~still
            results[:4, moving] = rank_statistics(part[moving])
            results[4, finite] = part[finite].std(axis=(1, 2))
            parts.append(results)
        labels += new
    rhat, bulk, tail, mcse, deviation = np.concatenate(parts, axis=1) if parts else np.empty((5, 0))
    return Convergence(
        space=space,
        total=total,
        seed=seed,
        chains=group.sizes["chain"],
        draws=group.sizes["draw"],
        labels=tuple(labels),
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        mcse=mcse,
        deviation=deviation,
        constant=tuple(constant),
        nonfinite=tuple(nonfinite),
    )


def group_of(trace: xr.DataTree, space: Space) -> xr.Dataset | None:
    """Return the variables of a space; None if the trace lacks them or holds no draw.

    Parameters
    ----------
    trace
        A trace.
    space
        Which space. Sites stand in the order of ``posterior`` in all of them.
    """
    if space == "function":
        if "predictions" not in trace.children or "log_predictive" not in trace["predictions"]:
            return None
        group = trace["predictions"].to_dataset()[["log_predictive"]]
        return group if group.sizes["chain"] * group.sizes["draw"] else None
    name = _GROUPS[space]
    if name not in trace.children or not trace[name].data_vars:
        return None
    group = trace[name].to_dataset()
    if not group.sizes["chain"] * group.sizes["draw"]:
        return None
    if space != "weight" and "posterior" in trace.children:
        order = [site for site in trace["posterior"].data_vars if site in group]
        group = group[[*order, *(site for site in group if site not in order)]]
    return group


def _label(name: str, shape: Sequence[int], index: int) -> str:
    if not shape:
        return name
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(index, tuple(shape)))}]"
