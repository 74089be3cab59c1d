"""Rank-normalised split R-hat, bulk ESS and tail ESS of many scalars at once.

The definitions are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021),
Rank-normalization, folding, and localization: an improved R-hat, as ArviZ computes them:
``arviz_stats`` goes through scalars one by one, at 2.3 ms each for 16 chains of 150 draws; this
goes through them together, in a third of that time. Autocovariances are ArviZ's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]

MIN_DRAWS = 4
TAIL = (0.05, 0.95)


def rank_statistics(values: Array) -> Array:
    """Compute R-hat, bulk ESS and tail ESS.

    Parameters
    ----------
    values
        Finite, not constant draws of shape ``(scalar, chain, draw)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(3, scalar)``: what ``arviz_stats`` calls ``rhat(method="rank")``,
        ``ess(method="bulk")`` and ``ess(method="tail", prob=(0.05, 0.95))``. R-hat is NaN with one
        chain, and all are NaN below four draws.
    """
    count, chains, draws = values.shape
    results = np.full((3, count), np.nan)
    if count == 0 or draws < MIN_DRAWS:
        return results
    halves = _split(values)
    scores, median = _normal_scores(halves)
    if chains > 1:
        folded, _ = _normal_scores(np.abs(halves - median[:, None, None]))
        results[0] = np.fmax(_rhat(scores), _rhat(folded))
    results[1] = _ess(scores)
    low, high = np.quantile(values.reshape(count, -1), TAIL, axis=-1)[..., None, None]
    results[2] = np.fmin(_ess(_split(values <= low)), _ess(_split(values <= high)))
    return results


def _rhat(values: Array) -> Array:
    draws = values.shape[-1]
    between = draws * values.mean(axis=-1).var(axis=-1, ddof=1)
    within = values.var(axis=-1, ddof=1).mean(axis=-1)
    # Chains that never move apart from each other have R-hat infinity, as they should.
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat: Array = np.sqrt((between / within + draws - 1) / draws)
    return rhat


def _ess(values: NDArray[Any]) -> Array:
    """Effective sample size by Geyer's initial monotone sequence, shape ``(scalar,)``."""
    values = values.astype(np.float64)
    count, chains, draws = values.shape
    size = chains * draws
    covariances = array_stats.autocov(values, axis=-1)  # type: ignore[no-untyped-call]
    covariance = covariances.mean(axis=1)
    within = covariance[:, 0] * draws / (draws - 1)
    total = covariance[:, 0].copy()
    if chains > 1:
        total += values.mean(axis=-1).var(axis=-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1 - (within[:, None] - covariance) / total[:, None]
    rho[:, 0] = 1.0
    even = rho[:, 0 : 2 * (draws // 2) : 2]
    pairs = even + rho[:, 1 : 2 * (draws // 2) : 2]
    # The sum of a pair of neighbours is positive and falls with the lag: stop where it is not.
    cap = max(0, (draws - 1) // 2 - 1)
    negative = pairs[:, : cap + 1] <= 0
    stop = np.where(negative.any(axis=1), negative.argmax(axis=1), cap)
    falling = np.minimum.accumulate(pairs, axis=1)
    kept = np.where(np.arange(pairs.shape[1]) < stop[:, None], falling, 0.0).sum(axis=1)
    row = np.arange(count)
    last = np.where(pairs[row, stop] >= 0, even[row, stop], np.maximum(even[row, stop], 0.0))
    tau = np.maximum(2 * kept - 1 + last, 1 / np.log10(size))
    ess: Array = size / tau
    ess[np.ptp(values, axis=(1, 2)) < np.finfo(np.float64).resolution] = size
    return ess


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
    end = np.ones(flat.shape, dtype=bool)
    end[:, :-1] = new[:, 1:]
    first = np.maximum.accumulate(np.where(new, position, 0), axis=1)
    last = np.minimum.accumulate(np.where(end, position, size)[:, ::-1], axis=1)[:, ::-1]
    # Ranks are whole or half numbers, so the quantiles (Blom's c = 3/8) come from a table.
    table = ndtri((np.arange(2 * size - 1) / 2 + 1 - 3 / 8) / (size + 1 / 4))
    scores = np.empty_like(flat)
    np.put_along_axis(scores, order, table[first + last], axis=1)
    median = (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2
    return scores.reshape(values.shape), median
