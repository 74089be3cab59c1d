"""How far pairs of members are from each other as functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, ORANGE, bare, figure, look

Array = NDArray[np.float64]


def plot_diversity(distances: Mapping[str, Array], same_chain: NDArray[np.bool_]) -> Figure:
    """Draw histograms over pairs, pairs within and across chains apart.

    Parameters
    ----------
    distances
        Name of a distance to its values, shape ``(pair,)``.
    same_chain
        Whether both members are draws of one chain, shape ``(pair,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A row a distance, each histogram of unit area.
    """
    sets = [
        (label, mask, colour)
        for label, mask, colour in (
            ("two chains", ~same_chain, BLUE),
            ("one chain", same_chain, ORANGE),
        )
        if mask.any()
    ]
    with look():
        picture = figure(0.5 + 1.4 * len(distances))
        grid = picture.subplots(len(distances), 1, squeeze=False)[:, 0]
        for axes, (name, values) in zip(grid, distances.items(), strict=True):
            edges = np.histogram_bin_edges(values, 50)
            for _, mask, colour in sets:
                heights, _ = np.histogram(values[mask], edges, density=True)
                axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3, lw=0)
                axes.stairs(heights, edges, color=colour, lw=1.1)
            bare(axes)
            axes.set_xlim(left=min(0.0, float(edges[0])))
            axes.set_xlabel(name)
        # Room for the labels above the bars.
        grid[0].set_ylim(top=grid[0].get_ylim()[1] / (0.95 - 0.16 * len(sets)))
        for place, (label, _, colour) in enumerate(sets):
            grid[0].text(
                0.01,
                0.95 - 0.16 * place,
                f"pairs of {label}",
                color=colour,
                va="top",
                transform=grid[0].transAxes,
            )
    return picture
