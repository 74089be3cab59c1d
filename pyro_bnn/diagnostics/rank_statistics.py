"""Rank-normalised split R-hat, ESS and the Monte-Carlo error of the mean, as ArviZ has them."""

from __future__ import annotations

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray

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
    count, chains, draws = values.shape
    results = np.full((4, count), np.nan)
    if count == 0 or draws < MIN_DRAWS:
        return results
    # Chains that never move apart from each other have R-hat infinity, as they should.
    with np.errstate(divide="ignore", invalid="ignore"):
        if chains > 1:
            results[0] = array_stats.rhat(values)  # type: ignore[no-untyped-call]
        results[1] = array_stats.ess(values, method="bulk")  # type: ignore[no-untyped-call]
        results[2] = array_stats.ess(  # type: ignore[no-untyped-call]
            values, method="tail", prob=TAIL
        )
        worth = array_stats.ess(values, method="mean")  # type: ignore[no-untyped-call]
        results[3] = values.std(axis=(1, 2), ddof=1) / np.sqrt(worth)
    return results
