"""Rank-normalised split R-hat, ESS and the Monte-Carlo error of the mean, as ArviZ has them.

ArviZ's functions take one scalar at a time and rank its draws anew for each statistic, which is
most of their time. Here the draws are ranked once, for all scalars of a block; R-hat and ESS of the
scores are ArviZ's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

Array = NDArray[np.float64]

MIN_DRAWS = 4
TAIL = (0.05, 0.95)


def rank_statistics(values: Array) -> Array:
    """Compute R-hat, bulk ESS, tail ESS and the Monte-Carlo standard error of the mean.

    The definitions are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021),
    Rank-normalization, folding, and localization: an improved R-hat.

    Parameters
    ----------
    values
        Finite, not constant draws of shape ``(scalar, chain, draw)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(4, scalar)``, the error in the units of the draws. R-hat is NaN with one chain, and
        all are NaN below four draws.
    """
    count, _, draws = values.shape
    results = np.full((4, count), np.nan)
    if count == 0 or draws < MIN_DRAWS:
        return results
    # Chains that never move apart from each other have R-hat infinity, as they should.
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = _of_few(values) if draws < 2 * MIN_DRAWS else _of_scores(values)
    results[:3] = worth[:3]
    results[3] = values.std(axis=(1, 2), ddof=1) / np.sqrt(worth[3])
    return results


def normal_scores(values: Array) -> Array:
    """Replace numbers by the normal quantiles of their ranks along the last axis (eq. 14).

    Parameters
    ----------
    values
        Shape ``(..., draw)``.

    Returns
    -------
    numpy.ndarray
        Of the same shape; numbers that are equal share the mean of their ranks.
    """
    scores: Array = ndtri((rankdata(values, axis=-1) - 0.375) / (values.shape[-1] + 0.25))
    return scores


def _of_scores(values: Array) -> Array:
    """Return R-hat and the ESS of bulk, tail and mean, ``(4, scalar)``."""
    half = values.shape[-1] // 2
    # Two chains of each; the middle draw of an odd number is left out.
    halves = np.concatenate([values[..., :half], values[..., -half:]], axis=1)
    scores = _scores(halves)
    rhat = np.full(len(values), np.nan)
    if values.shape[1] > 1:
        folded = _scores(np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True)))
        rhat = np.maximum(_rhat(scores, "identity"), _rhat(folded, "identity"))
    low, high = np.quantile(values, TAIL, axis=(1, 2))[..., None, None]
    tail = np.minimum(_ess(halves <= low, "identity"), _ess(halves <= high, "identity"))
    return np.stack([rhat, _ess(scores, "identity"), tail, _ess(halves, "identity")])


def _of_few(values: Array) -> Array:
    """Do the same for chains whose halves are too short for ArviZ to take them for chains."""
    rhat = _rhat(values, "rank") if values.shape[1] > 1 else np.full(len(values), np.nan)
    tail = _ess(values, "tail", prob=TAIL)
    return np.stack([rhat, _ess(values, "bulk"), tail, _ess(values, "mean")])


def _scores(halves: Array) -> Array:
    return normal_scores(halves.reshape(len(halves), -1)).reshape(halves.shape)


def _rhat(values: Array, method: str) -> Array:
    found: Array = array_stats.rhat(values, method=method)  # type: ignore[no-untyped-call]
    return found


def _ess(values: NDArray[Any], method: str, **settings: Any) -> Array:
    found: Array = array_stats.ess(values, method=method, **settings)  # type: ignore[no-untyped-call]
    return found
