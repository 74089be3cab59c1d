"""R-hat within each chain: whether a chain agrees with itself over time.

Chains in different modes have a high R-hat even where each has settled. Sommer et al. (2024),
Connecting the dots, therefore split each single chain and average the R-hats of the chains.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyro_bnn.diagnostics.rank_statistics import MIN_DRAWS, normal_scores

PIECES = 4

Array = NDArray[np.float64]


def chainwise_rhat(values: Array, pieces: int = PIECES) -> Array:
    """Compute the rank-normalised R-hat of the pieces of each chain, averaged over chains.

    Parameters
    ----------
    values
        Finite draws of shape ``(scalar, chain, draw)``; the last draws that fill no piece are left
        out.
    pieces
        Into how many a chain is split.

    Returns
    -------
    numpy.ndarray
        Shape ``(scalar,)``. NaN where a chain does not move, or its pieces have fewer than four
        draws.
    """
    scalars, chains, draws = values.shape
    length = draws // pieces
    if length < MIN_DRAWS or not scalars:
        return np.full(scalars, np.nan)
    whole = values[..., : length * pieces]
    folded = np.abs(whole - np.median(whole, axis=-1, keepdims=True))
    shape = (scalars, chains, pieces, length)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = [_rhat(normal_scores(part).reshape(shape)) for part in (whole, folded)]
    result: Array = np.maximum(*both).mean(axis=1)
    return result


def _rhat(pieces: Array) -> Array:
    """Compute R-hat over the last two axes, piece and draw."""
    length = pieces.shape[-1]
    within = pieces.var(axis=-1, ddof=1).mean(axis=-1)
    between = pieces.mean(axis=-1).var(axis=-1, ddof=1)
    result: Array = np.sqrt((length - 1) / length + between / within)
    return result
