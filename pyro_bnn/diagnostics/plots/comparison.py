"""Runs side by side: a number and its interval in each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pyro_bnn.diagnostics.plots.style import BLUE, RULE, figure, look

Point = tuple[float, tuple[float, float]]


def plot_comparison(columns: Mapping[str, Sequence[Point | None]], names: Sequence[str]) -> Figure:
    """Draw a panel a column, a row a run.

    Parameters
    ----------
    columns
        Label to each run's number and interval, in the order of `names`; None where unknown.
    names
        Of the runs.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels side by side.
    """
    across = min(2, len(columns))
    down = -(-len(columns) // across)
    with look():
        picture = figure(down * (0.75 + 0.26 * len(names)))
        grid = picture.subplots(down, across, squeeze=False, sharey=True)
        rows = np.arange(len(names))[::-1]
        for axes, (label, points) in zip(grid.flat, columns.items(), strict=False):
            for row, point in zip(rows, points, strict=True):
                if point is None:
                    continue
                value, (low, high) = point
                axes.plot([low, high], [row, row], color=BLUE, lw=1.6, alpha=0.5)
                axes.plot([value], [row], "o", color=BLUE, ms=4.5)
            axes.set_title(label)
            axes.set_yticks(rows, [name if len(name) < 25 else f"{name[:23]}…" for name in names])
            axes.set_ylim(-0.6, len(names) - 0.4)
            axes.locator_params(axis="x", nbins=3)
            axes.grid(axis="x", color=RULE, lw=0.5)
            axes.set_axisbelow(True)
        for axes in list(grid.flat)[len(columns) :]:
            axes.set_visible(False)
    return picture
