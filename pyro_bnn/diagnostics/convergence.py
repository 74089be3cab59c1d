"""R-hat and effective sample size in three spaces: weights, canonical weights and functions.

Rank-normalised split R-hat and bulk and tail ESS follow Vehtari, Gelman, Simpson, Carpenter and
Bürkner (2021), Rank-normalization, folding, and localization: an improved R-hat. ArviZ computes
the two statistics; the ranks, which are most of its cost, are taken here for many scalars at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.special import ndtri

from pyro_bnn.diagnostics.blocks import gather

Space = Literal["weight", "canonical", "function"]
SPACES: tuple[Space, ...] = ("weight", "canonical", "function")
MAX_SCALARS = 2_000
SUBSET_SEED = 0
MIN_DRAWS = 4
TAIL = (0.05, 0.95)

_BATCH = 2**19  # numbers per batch of scalars: 4 MiB in float64, with some ten temporaries

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Convergence:
    """Convergence of the scalars of one space.

    Attributes
    ----------
    space
        ``"weight"``, ``"canonical"`` or ``"function"``.
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
    constant: tuple[str, ...]
    nonfinite: tuple[str, ...]

    @property
    def is_subset(self) -> bool:
        """Whether the scalars are a random subset of the space."""
        return len(self.labels) < self.total

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
    """Compute R-hat and ESS of the scalars of one space.

    Parameters
    ----------
    trace
        A trace with the group ``posterior``, ``canonical_posterior`` or ``predictions``.
    space
        Which of them: ``"weight"``, ``"canonical"`` or ``"function"`` (the log predictive
        density of each test input).
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
    group = _group(trace, space)
    if group is None:
        return None
    shapes = {str(name): group[name].transpose("chain", "draw", ...).shape[2:] for name in group}
    total = sum(math.prod(shape) for shape in shapes.values())
    picks = _subset(shapes, total, max_scalars, seed)
    labels: list[str] = []
    parts: list[tuple[Array, Array, Array]] = []
    constant: list[str] = []
    nonfinite: list[str] = []
    for name, index, values in gather(group, picks):
        new = [_label(name, shapes[name], int(i)) for i in index]
        step = max(1, _BATCH // max(1, math.prod(values.shape[1:])))
        for start in range(0, len(index), step):
            part = values[start : start + step].astype(np.float64)
            names = new[start : start + step]
            finite = np.isfinite(part).all(axis=(1, 2))
            still = finite & (part.max(axis=(1, 2)) == part.min(axis=(1, 2)))
            nonfinite += [label for label, yes in zip(names, ~finite, strict=True) if yes]
            constant += [label for label, yes in zip(names, still, strict=True) if yes]
            results = np.full((3, len(part)), np.nan)
            moving = finite & ~still
            results[:, moving] = statistics(part[moving])
            parts.append((results[0], results[1], results[2]))
        labels += new
    rhat, bulk, tail = (
        np.concatenate([part[i] for part in parts]) if parts else np.empty(0) for i in range(3)
    )
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
        constant=tuple(constant),
        nonfinite=tuple(nonfinite),
    )


def statistics(values: Array) -> Array:
    """Compute R-hat, bulk ESS and tail ESS of many scalars.

    Equal to ``arviz_stats.rhat`` and ``ess`` with ``method="rank"``, ``"bulk"`` and ``"tail"``,
    at less than half their time.

    Parameters
    ----------
    values
        Finite, not constant draws of shape ``(scalar, chain, draw)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(3, scalar)``. R-hat is NaN with one chain, all are NaN below four draws.
    """
    count, chains, draws = values.shape
    results = np.full((3, count), np.nan)
    if count == 0 or draws < MIN_DRAWS:
        return results
    halves = _split(values)
    scores, median = _normal_scores(halves)
    with np.errstate(divide="ignore", invalid="ignore"):
        if chains > 1:
            folded, _ = _normal_scores(np.abs(halves - median[:, None, None]))
            results[0] = np.fmax(
                array_stats.rhat(scores, method="identity"),
                array_stats.rhat(folded, method="identity"),
            )
        results[1] = array_stats.ess(scores, method="identity")
        cuts = np.quantile(values.reshape(count, -1), TAIL, axis=-1)
        results[2] = np.minimum(
            *(array_stats.ess(_split(values <= cut[:, None, None]), method="identity") for cut in cuts)
        )
    return results


def _split(values: NDArray[Any]) -> NDArray[Any]:
    half = values.shape[-1] // 2
    return np.concatenate([values[..., :half], values[..., -half:]], axis=1)


def _normal_scores(values: Array) -> tuple[Array, Array]:
    """Replace each draw by the normal quantile of its rank (ties share theirs); also the median."""
    flat = values.reshape(len(values), -1)
    size = flat.shape[1]
    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, axis=1)
    position = np.arange(size)
    new = np.ones(flat.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, position, 0), axis=1)
    end = np.ones(flat.shape, dtype=bool)
    end[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(end, position, size)[:, ::-1], axis=1)[:, ::-1]
    # Ranks are whole or half numbers, so the quantiles (Blom's c = 3/8) come from a table.
    table = ndtri((np.arange(2 * size - 1) / 2 + 1 - 3 / 8) / (size + 1 / 4))
    scores = np.empty_like(flat)
    np.put_along_axis(scores, order, table[first + last], axis=1)
    median = (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2
    return scores.reshape(values.shape), median


def _group(trace: xr.DataTree, space: Space) -> xr.Dataset | None:
    if space == "function":
        if "predictions" not in trace.children or "log_predictive" not in trace["predictions"]:
            return None
        return trace["predictions"].to_dataset()[["log_predictive"]]
    name = "posterior" if space == "weight" else "canonical_posterior"
    if name not in trace.children or not trace[name].data_vars:
        return None
    group = trace[name].to_dataset()
    if space == "canonical" and "posterior" in trace.children:
        order = [site for site in trace["posterior"].data_vars if site in group]
        group = group[[*order, *(site for site in group if site not in order)]]
    return group


def _subset(
    shapes: dict[str, tuple[int, ...]], total: int, max_scalars: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    chosen = np.arange(total)
    if total > max_scalars:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(total, size=max_scalars, replace=False))
    picks = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        inside = chosen[(chosen >= start) & (chosen < stop)] - start
        if len(inside):
            picks[name] = inside
        start = stop
    return picks


def _label(name: str, shape: Sequence[int], index: int) -> str:
    if not shape:
        return name
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(index, tuple(shape)))}]"
