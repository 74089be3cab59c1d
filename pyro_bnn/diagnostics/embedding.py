"""Draws as points of a plane: principal components in each space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather, random_scalars
from pyro_bnn.diagnostics.convergence import MAX_SCALARS, SUBSET_SEED, Space, group_of
from pyro_bnn.diagnostics.draws import usable_draws

POINTS = 400

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Embedding:
    """Draws in the plane of largest variance.

    Attributes
    ----------
    points
        Shape ``(draw, 2)``.
    chain
        Chain of each, shape ``(draw,)``.
    explained
        Share of the variance along each axis, shape ``(2,)``.
    """

    points: Array
    chain: NDArray[np.int64]
    explained: Array


def embedding(
    trace: xr.DataTree,
    space: Space,
    points: int = POINTS,
    max_scalars: int = MAX_SCALARS,
    seed: int = SUBSET_SEED,
) -> Embedding | None:
    """Project evenly spaced draws on their first two principal components.

    Parameters
    ----------
    trace
        A trace.
    space
        Which space.
    points
        Draws at most, over all chains.
    max_scalars
        Of a larger space, a random subset of this size.
    seed
        Of the subset.

    Returns
    -------
    Embedding or None
        None if the trace lacks the space, or has fewer than three finite draws.
    """
    group = group_of(trace, space)
    if group is None:
        return None
    picks = usable_draws(group).spaced(points)
    if len(picks) < 3:
        return None
    columns = [
        values[:, picks.chain, picks.draw]
        for _, _, values in gather(group, random_scalars(group, max_scalars, seed))
    ]
    coordinates, explained = principal_components(np.concatenate(columns).T.astype(np.float64))
    return Embedding(coordinates, picks.chain, explained)


def principal_components(values: Array) -> tuple[Array, Array]:
    """Compute the first two principal components.

    Parameters
    ----------
    values
        Shape ``(draw, scalar)``.

    Returns
    -------
    points : numpy.ndarray
        Shape ``(draw, 2)``; the sign of an axis is such that its largest coordinate is positive.
    explained : numpy.ndarray
        Shares of the variance, shape ``(2,)``; zeros if there is none.
    """
    centred = values - values.mean(axis=0)
    # Fewer draws than scalars: their inner products are the smaller matrix.
    squares, vectors = np.linalg.eigh(centred @ centred.T)
    squares, vectors = np.maximum(squares[:-3:-1], 0.0), vectors[:, :-3:-1]
    points = vectors * np.sqrt(squares)
    points *= np.sign(points[np.abs(points).argmax(axis=0), [0, 1]] + 1e-300)
    total = float(np.sum(centred**2))
    return points, squares / total if total > 0 else np.zeros(2)
