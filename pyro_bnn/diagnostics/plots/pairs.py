"""Scatter plots of every pair of a few weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import chain_colours, figure, look

Array = NDArray[np.float64]
_POINTS = 400


def plot_pairs(names: Sequence[str], values: Array) -> Figure:
    """Draw the pairs below the diagonal, histograms of each chain on it.

    Parameters
    ----------
    names
        Of the weights.
    values
        Their draws, shape ``(weight, chain, draw)``; draws that are not finite are left out.

    Returns
    -------
    matplotlib.figure.Figure
        A colour a chain. At most 400 draws are shown, evenly spaced.
    """
    count, chains, draws = values.shape
    step = max(1, math.ceil(chains * draws / _POINTS))
    chain = np.repeat(np.arange(chains), draws)
    flat = values.reshape(count, -1)
    fine = np.isfinite(flat).all(axis=0)
    colours = chain_colours(chains)
    order = np.random.default_rng(0).permutation(np.flatnonzero(fine)[::step])
    with look():
        picture = figure(4.6)
        grid = picture.subplots(count, count, sharex="col", squeeze=False)
        for i, row in enumerate(grid):
            for j, axes in enumerate(row):
                if j > i:
                    axes.set_visible(False)
                elif i == j:
                    edges = np.histogram_bin_edges(flat[i, fine], 24)
                    for one in range(chains):
                        kept = flat[i, fine & (chain == one)]
                        heights, _ = np.histogram(kept, edges, density=True)
                        axes.stairs(heights, edges, color=colours[one], lw=0.9)
                    axes.set_yticks([])
                    axes.spines["left"].set_visible(False)
                else:
                    axes.scatter(
                        flat[j, order],
                        flat[i, order],
                        c=[colours[k] for k in chain[order]],
                        s=4,
                        lw=0,
                        alpha=0.7,
                    )
                    axes.locator_params(nbins=3)
                    if j > 0:
                        axes.tick_params(labelleft=False)
                axes.tick_params(labelsize=7.5)
                if i == count - 1:
                    axes.set_xlabel(names[j], fontsize=7.5)
                if j == 0 and i > 0:
                    axes.set_ylabel(names[i], fontsize=7.5)
        picture.align_labels()
    return picture
