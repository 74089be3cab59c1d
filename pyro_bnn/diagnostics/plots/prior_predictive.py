"""What a model predicts before it has seen data."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, INK, RULE, figure, look

_LINES = 30

Array = NDArray[np.float64]


def plot_prior_predictive(mean: Array, x: Array | None = None) -> Figure:
    """Draw the predictions of networks from the prior.

    Parameters
    ----------
    mean
        Class probabilities, shape ``(draw, row, class)``, or means, shape ``(draw, row)``.
    x
        One input a row, shape ``(row,)`` or ``(row, 1)``, to draw means as functions of it.

    Returns
    -------
    matplotlib.figure.Figure
        Of classes, how sure the networks are of a row, from even to certain: a prior of too
        large a scale is certain of everything. Of means, single networks as functions of x under
        bands of 50 % and 90 %; without x the distribution of the predicted values.
    """
    with look():
        picture = figure(3.2)
        axes = picture.subplots()
        if mean.ndim == 3:
            _certainties(axes, mean)
        elif x is not None and x.size == mean.shape[1]:
            _functions(axes, mean, x.reshape(-1))
        else:
            low, high = np.quantile(mean, [0.005, 0.995])
            heights, edges = np.histogram(mean, np.linspace(low, high, 41), density=True)
            axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.85, lw=0)
            axes.set_xlabel("predicted mean, networks and rows together")
            axes.set_ylabel("density")
        axes.grid(color=RULE, lw=0.5)
        axes.set_axisbelow(True)
    return picture


def _certainties(axes: Axes, mean: Array) -> None:
    """Histogram of the probability of each row's most probable class."""
    edges = np.linspace(1 / mean.shape[2], 1.0, 31)
    heights, _ = np.histogram(mean.max(2), edges)
    axes.stairs(heights / heights.sum(), edges, fill=True, color=BLUE, alpha=0.85, lw=0)
    axes.set_xlabel("probability of the most probable class")
    axes.set_ylabel("share of networks and rows")


def _functions(axes: Axes, mean: Array, x: Array) -> None:
    """Single networks over x, and bands of all."""
    order = np.argsort(x)
    for level, shade in ((0.9, 0.15), (0.5, 0.25)):
        low, high = np.quantile(mean[:, order], [0.5 - level / 2, 0.5 + level / 2], axis=0)
        axes.fill_between(x[order], low, high, color=BLUE, alpha=shade, lw=0)
    for line in mean[:_LINES, order]:
        axes.plot(x[order], line, color=INK, lw=0.6, alpha=0.5)
    axes.set_xlabel("x")
    axes.set_ylabel("mean of y")
