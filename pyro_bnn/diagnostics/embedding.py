"""Draws as points of a plane: principal components, t-SNE or UMAP in each space."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather, random_scalars
from pyro_bnn.diagnostics.convergence import MAX_SCALARS, SUBSET_SEED, Space, group_of
from pyro_bnn.diagnostics.draws import usable_draws
from pyro_bnn.errors import UserError

POINTS = 400

Method = Literal["pca", "tsne", "umap"]

# Module and distribution of what is not a dependency.
_PACKAGES = {"tsne": ("sklearn", "scikit-learn"), "umap": ("umap", "umap-learn")}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Embedding:
    """Draws in a plane.

    Attributes
    ----------
    points
        Shape ``(draw, 2)``.
    chain
        Chain of each, shape ``(draw,)``.
    explained
        Share of the variance along each axis, shape ``(2,)``; NaN for t-SNE and UMAP, whose axes
        mean nothing.
    method
        ``"pca"``, ``"tsne"`` or ``"umap"``.
    """

    points: Array
    chain: NDArray[np.int64]
    explained: Array
    method: Method = "pca"


def embedding(
    trace: xr.DataTree,
    space: Space,
    points: int = POINTS,
    max_scalars: int = MAX_SCALARS,
    seed: int = SUBSET_SEED,
    method: Method = "pca",
) -> Embedding | None:
    """Put evenly spaced draws into a plane.

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
        Of the subset, and of t-SNE and UMAP.
    method
        Principal components, t-SNE (needs scikit-learn) or UMAP (needs umap-learn). Distances
        between clusters mean something in the first only.

    Returns
    -------
    Embedding or None
        None if the trace lacks the space, or has fewer than three finite draws (ten for t-SNE and
        UMAP).

    Raises
    ------
    UserError
        If the package that the method needs is not installed.
    """
    if not has_method(method):
        raise UserError(f"{method} is not installed: install {_PACKAGES[method][1]}, or use pca")
    group = group_of(trace, space)
    if group is None:
        return None
    picks = usable_draws(group).spaced(points)
    if len(picks) < (3 if method == "pca" else 10):
        return None
    columns = [
        values[:, picks.chain, picks.draw]
        for _, _, values in gather(group, random_scalars(group, max_scalars, seed))
    ]
    values = np.concatenate(columns).T.astype(np.float64)
    if method == "pca":
        coordinates, explained = principal_components(values)
        return Embedding(coordinates, picks.chain, explained)
    points_ = _tsne(values, seed) if method == "tsne" else _umap(values, seed)
    return Embedding(points_, picks.chain, np.full(2, np.nan), method)


def has_method(method: Method) -> bool:
    """Whether the package that a method needs is installed."""
    return method == "pca" or find_spec(_PACKAGES[method][0]) is not None


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


def _tsne(values: Array, seed: int) -> Array:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(values) - 1) / 3)
    # Of many scalars, the leading components hold all that distances between few draws need.
    found: Array = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        _leading(values)
    )
    return found


def _umap(values: Array, seed: int) -> Array:
    from umap import UMAP  # type: ignore[import-not-found]

    neighbours = min(15, len(values) - 1)
    found: Array = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(
        _leading(values)
    )
    return found


def _leading(values: Array) -> Array:
    """Rotate draws to their principal axes, at most fifty."""
    centred = values - values.mean(axis=0)
    squares, vectors = np.linalg.eigh(centred @ centred.T)
    rotated: Array = (vectors * np.sqrt(np.maximum(squares, 0.0)))[:, ::-1][:, :50]
    return rotated
