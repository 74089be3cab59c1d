"""How often each hidden unit holds the largest weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import binom

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, figure, look

_ROWS = 4
_ROW = 1.25


def plot_exchangeability(counts: Mapping[str, NDArray[np.int64]]) -> Figure:
    """Draw the counts of each hidden space beside those of exchangeable units.

    Parameters
    ----------
    counts
        Hidden space to counts of shape ``(unit,)``; the first four are drawn.

    Returns
    -------
    matplotlib.figure.Figure
        A row a space; the grey band holds 99 % of the bars of exchangeable units.
    """
    shown = dict(list(counts.items())[:_ROWS])
    with look():
        picture = figure(0.55 + _ROW * len(shown))
        grid = picture.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (space, heights) in zip(grid, shown.items(), strict=True):
            units, total = len(heights), int(heights.sum())
            low, high = binom.interval(0.99, total, 1 / units)
            axes.axhspan(low - 0.5, high + 0.5, color=MUTED, alpha=0.22, lw=0)
            axes.axhline(total / units, color=MUTED, lw=0.8, ls=(0, (3, 3)))
            axes.bar(np.arange(units), heights, width=0.8 if units < 100 else 1.0, color=BLUE)
            axes.set_xlim(-0.7, units - 0.3)
            axes.set_ylim(0, 1.08 * max(float(heights.max()), high + 0.5))
            axes.set_title(f"{space}: {total:,} draws", fontsize=8.5, pad=3)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.set_ylabel("draws")
        grid[-1].set_xlabel("unit with the largest weight (band: 99 % if exchangeable)")
    return picture
