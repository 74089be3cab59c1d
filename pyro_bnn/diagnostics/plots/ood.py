"""Uncertainty on the test split beside that on another distribution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, ORANGE, bare, figure, look

Array = NDArray[np.float64]


def plot_ood(scores: Mapping[str, tuple[Array, Array]], name: str) -> Figure:
    """Draw histograms of each score.

    Parameters
    ----------
    scores
        Name of a score to its values on the test split and elsewhere.
    name
        What the other distribution is called.

    Returns
    -------
    matplotlib.figure.Figure
        A row a score, each histogram of unit area.
    """
    with look():
        picture = figure(0.5 + 1.4 * len(scores))
        grid = picture.subplots(len(scores), 1, squeeze=False)[:, 0]
        for axes, (score, both) in zip(grid, scores.items(), strict=True):
            edges = np.histogram_bin_edges(np.concatenate(both), 40)
            for values, colour in zip(both, (BLUE, ORANGE), strict=True):
                heights, _ = np.histogram(values, edges, density=True)
                axes.stairs(heights, edges, fill=True, color=colour, alpha=0.3, lw=0)
                axes.stairs(heights, edges, color=colour, lw=1.1)
            bare(axes)
            axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
            axes.set_xlabel(score)
        for place, (label, colour) in enumerate((("test split", BLUE), (name, ORANGE))):
            grid[0].text(
                0.99,
                0.95 - 0.16 * place,
                label,
                color=colour,
                ha="right",
                va="top",
                transform=grid[0].transAxes,
            )
    return picture
