"""Pictures of the draws in a plane, in weight, canonical and function space."""

from __future__ import annotations

import xarray as xr

from pyro_bnn.diagnostics.convergence import SPACES, Space
from pyro_bnn.diagnostics.embedding import POINTS, Method, embedding, has_method
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_CAPTIONS: dict[Method, tuple[str, str]] = {
    "pca": (
        "Draws in the plane of their first two principal components, a panel a space.",
        "Draws in the plane of their largest variance, a colour a chain. Clusters of one colour:"
        " chains that stay apart in that space.",
    ),
    "tsne": (
        "Draws by t-SNE, a panel a space, coloured by chain.",
        "The same draws by t-SNE, which keeps neighbours together; distances between clusters mean"
        " nothing in it.",
    ),
    "umap": (
        "Draws by UMAP, a panel a space, coloured by chain.",
        "The same draws by UMAP, which keeps neighbours together; distances between clusters mean"
        " little in it.",
    ),
}
_SHOWN: tuple[Space, ...] = (*SPACES, "null")
_NEIGHBOURED = 200  # draws that t-SNE and UMAP see: a second a space

_NAMES: dict[Method, str] = {"tsne": "t-SNE (scikit-learn)", "umap": "UMAP (umap-learn)"}


def embedding_pictures(trace: xr.DataTree) -> list[Picture]:
    """Draw the draws in the plane by every method that is installed."""
    from pyro_bnn.diagnostics.plots.embedding import plot_embeddings

    pictures = []
    for method, words in _CAPTIONS.items():
        if not has_method(method):
            continue
        points = POINTS if method == "pca" else _NEIGHBOURED
        found = {str(space): embedding(trace, space, points, method=method) for space in _SHOWN}
        shown = {space: one for space, one in found.items() if one is not None}
        if shown:
            pictures.append(picture(plot_embeddings(shown), *words))
    return pictures


def missing_embeddings() -> str:
    """Say which methods are not installed; empty if all are."""
    absent = [name for method, name in _NAMES.items() if not has_method(method)]
    return f"Not drawn, as not installed: {', '.join(absent)}." if absent else ""
