"""Sum of squared weights as sampled against the least on the same orbit."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import MUTED, RULE, chain_colours, figure, look

Array = NDArray[np.float64]
_POINTS = 500


def plot_mass(before: Array, after: Array) -> Figure:
    """Draw the mass of each draw before and after scales are settled.

    Parameters
    ----------
    before, after
        Shape ``(chain, draw)``; what is not finite is left out.

    Returns
    -------
    matplotlib.figure.Figure
        Left, a dot a draw, of at most 500 evenly spaced, coloured by chain, with the diagonal that
        none can cross; right, the excess of all draws in percent.
    """
    fine = np.isfinite(before) & np.isfinite(after) & (after > 0)
    step = max(1, math.ceil(before.size / _POINTS))
    with look():
        picture = figure(2.9)
        left, right = picture.subplots(1, 2, width_ratios=(1.25, 1))
        for chain, colour in enumerate(chain_colours(len(before))):
            rows = np.flatnonzero(fine[chain])[::step]
            left.scatter(
                after[chain, rows], before[chain, rows], s=7, color=colour, alpha=0.6, lw=0
            )
        ends = np.array([after[fine].min(), after[fine].max()])
        left.plot(ends, ends, color=MUTED, lw=0.8, ls=(0, (3, 3)))
        left.set_xlabel("least on the orbit")
        left.set_ylabel("sum of squares as sampled")
        left.grid(color=RULE, lw=0.5)
        left.set_axisbelow(True)
        left.locator_params(nbins=5)
        excess = 100 * (before[fine] / after[fine] - 1)
        right.hist(excess, 40, color=chain_colours(3)[1], lw=0)
        right.set_xlabel("excess, %")
        right.set_yticks([])
        right.spines["left"].set_visible(False)
    return picture
