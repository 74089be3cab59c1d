"""Joint densities of two weights before and after the quotient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import MUTED, figure, look

Array = NDArray[np.float64]
_MOST_CELLS = 34


def plot_bivariate(pairs: Mapping[tuple[str, str], tuple[Array, Array]]) -> Figure:
    """Draw a row a pair of weights: left as sampled, right canonical, on the same axes.

    Parameters
    ----------
    pairs
        Names of two weights to their draws as sampled and canonical, each finite and not constant,
        shape ``(draw, 2)``.

    Returns
    -------
    matplotlib.figure.Figure
        Hexagons, the darker the more draws.
    """
    with look():
        picture = figure(0.35 + 2.25 * len(pairs))
        grid = picture.subplots(len(pairs), 2, sharex="row", sharey="row", squeeze=False)
        for row, ((first, second), both) in zip(grid, pairs.items(), strict=True):
            low, high = np.quantile(np.concatenate(both), [0.002, 0.998], axis=0)
            margin = 0.05 * (high - low) + 1e-12
            extent = np.stack([low - margin, high + margin]).T.ravel()
            cells = int(np.clip(np.sqrt(len(both[0])), 12, _MOST_CELLS))
            for axes, values in zip(row, both, strict=True):
                inside = ((values >= extent[::2]) & (values <= extent[1::2])).all(axis=1)
                axes.hexbin(
                    *values[inside].T,
                    gridsize=(cells, int(cells * 0.6)),
                    extent=tuple(extent),
                    bins="log",
                    mincnt=1,
                    cmap="viridis_r",
                    lw=0,
                )
                axes.axhline(0, color=MUTED, lw=0.5, ls=(0, (2, 3)), zorder=0)
                axes.axvline(0, color=MUTED, lw=0.5, ls=(0, (2, 3)), zorder=0)
                axes.set_xlabel(first)
                axes.locator_params(nbins=4)
            row[0].set_ylabel(second)
        grid[0, 0].set_title("as sampled")
        grid[0, 1].set_title("canonical")
    return picture
