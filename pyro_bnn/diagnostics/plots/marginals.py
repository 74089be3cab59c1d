"""Densities of single weights before and after the quotient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from pyro_bnn.diagnostics.plots.style import SPACE_COLOURS, bare, figure, look

Array = NDArray[np.float64]
_POINTS = 256


def plot_marginals(weights: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Draw a row a weight.

    Parameters
    ----------
    weights
        Name to its draws as sampled and canonical, finite and not constant, shapes ``(draw,)``.

    Returns
    -------
    matplotlib.figure.Figure
        Kernel density estimates of equal area.
    """
    with look():
        picture = figure(0.45 + 0.95 * len(weights))
        grid = picture.subplots(len(weights), 1, squeeze=False)[:, 0]
        for axes, (name, both) in zip(grid, weights.items(), strict=True):
            low, high = np.quantile(np.concatenate(both), [0.001, 0.999])
            margin = 0.1 * (high - low)
            at = np.linspace(low - margin, high + margin, _POINTS)
            for values, space in zip(both, ("weight", "canonical"), strict=True):
                density = gaussian_kde(values)(at)
                axes.fill_between(at, density, color=SPACE_COLOURS[space], alpha=0.25, lw=0)
                axes.plot(at, density, color=SPACE_COLOURS[space])
            bare(axes)
            axes.set_ylim(bottom=0)
            axes.set_title(name, fontsize=8.5, pad=3)
        for place, (label, space) in enumerate(
            (("as sampled", "weight"), ("canonical", "canonical"))
        ):
            grid[0].text(
                0.995,
                0.95 - 0.22 * place,
                label,
                color=SPACE_COLOURS[space],
                ha="right",
                va="top",
                transform=grid[0].transAxes,
            )
    return picture
