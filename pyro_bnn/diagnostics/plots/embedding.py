"""Draws of each space in a plane."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from pyro_bnn.diagnostics.embedding import Embedding
from pyro_bnn.diagnostics.format import percent
from pyro_bnn.diagnostics.plots.style import SPACE_NAMES, chain_colours, figure, look


def plot_embeddings(embeddings: Mapping[str, Embedding]) -> Figure:
    """Draw a panel a space, coloured by chain.

    Parameters
    ----------
    embeddings
        Space to its draws in the plane.

    Returns
    -------
    matplotlib.figure.Figure
        Clusters of one colour are chains that stay apart.
    """
    chains = np.unique(np.concatenate([one.chain for one in embeddings.values()]))
    colours = dict(zip(chains.tolist(), chain_colours(len(chains)), strict=True))
    with look():
        across = min(2, len(embeddings))
        down = -(-len(embeddings) // across)
        picture = figure(0.2 + 2.2 * down)
        grid = picture.subplots(down, across, squeeze=False).ravel()
        for axes in grid[len(embeddings) :]:
            axes.set_visible(False)
        for axes, (space, one) in zip(grid, embeddings.items(), strict=False):
            # Chains in turn, so that none hides the others.
            order = np.random.default_rng(0).permutation(len(one.chain))
            axes.scatter(
                *one.points[order].T,
                s=9,
                lw=0,
                alpha=0.75,
                c=[colours[int(chain)] for chain in one.chain[order]],
            )
            axes.set_title(SPACE_NAMES[space])
            if one.method == "pca":
                axes.set_xlabel(f"first axis ({percent(float(one.explained[0]))})")
                axes.set_ylabel(f"second ({percent(float(one.explained[1]))})")
                axes.locator_params(nbins=4)
            else:
                axes.set_xlabel({"tsne": "t-SNE", "umap": "UMAP"}[one.method])
                axes.set_xticks([])
                axes.set_yticks([])
    return picture
