"""Divergent transitions of each chain."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import ORANGE, figure, look


def plot_divergences(divergences: NDArray[np.int64], draws: int) -> Figure:
    """Draw the number of divergent transitions of each chain.

    Parameters
    ----------
    divergences
        Shape ``(chain,)``.
    draws
        Draws a chain.

    Returns
    -------
    matplotlib.figure.Figure
        A bar a chain.
    """
    with look():
        picture = figure(2.4)
        axes = picture.subplots()
        axes.bar(np.arange(len(divergences)), divergences, width=0.7, color=ORANGE)
        axes.set_xlabel("chain")
        axes.set_ylabel(f"divergences of {draws:,} draws")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return picture
