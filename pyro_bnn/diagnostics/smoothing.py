"""Importance weights smoothed by ArviZ, and as they are where there is no tail to smooth."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["smoothed_where_there_is_a_tail"]

Array = NDArray[np.float64]


def smoothed_where_there_is_a_tail(
    values: Array, smoothed: Callable[[Array], Array], plain: Callable[[Array], Array]
) -> Array:
    """Apply a function of ArviZ to rows, and another one to each row that it refuses.

    It refuses weights whose largest are all the same, as those of chains that stand still or of a
    guide that is a point: no Pareto distribution can be fitted to them, and k is infinite. So it
    is where a draw that was kept for several steps lies where the tail begins: with a quarter of
    the tail at its threshold the fit is not a number. ArviZ's warnings of a large k are dropped,
    for k is among the results.

    Parameters
    ----------
    values
        Shape ``(..., row)``, finite.
    smoothed
        From ``(..., row)`` to results ``(result, row)``; raises ``ValueError`` where it refuses.
    plain
        The same for one row, without smoothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = smoothed(values)
        for row in np.flatnonzero(np.isnan(result).any(axis=0)):
            result[:, row : row + 1] = plain(values[..., row : row + 1])
        return result
    except ValueError as error:
        if "tail values are the same" not in str(error):
            raise
    rows = values.shape[-1]
    if rows == 1:
        return plain(values)
    parts = [
        smoothed_where_there_is_a_tail(values[..., row : row + 1], smoothed, plain)
        for row in range(rows)
    ]
    return np.concatenate(parts, axis=1)
