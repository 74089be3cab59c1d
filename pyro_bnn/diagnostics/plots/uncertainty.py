"""Predictive uncertainty on the test inputs."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, ORANGE, RULE, figure, look

Array = NDArray[np.float64]
_POINTS = 2_000


def plot_entropy(entropy: Array, right: NDArray[np.bool_], classes: int) -> Figure:
    """Draw the entropy of the predictive distribution, right and wrong answers apart.

    Parameters
    ----------
    entropy
        In nats, shape ``(test,)``.
    right
        Whether the most probable class is the label, shape ``(test,)``.
    classes
        Number of classes; their logarithm is the largest entropy.

    Returns
    -------
    matplotlib.figure.Figure
        Two rows of histograms on one axis.
    """
    edges = np.linspace(0.0, np.log(classes), 33)
    with look():
        picture = figure(3.2)
        grid = picture.subplots(2, 1, sharex=True)
        for axes, mask, name, colour in (
            (grid[0], right, "right", BLUE),
            (grid[1], ~right, "wrong", ORANGE),
        ):
            heights, _ = np.histogram(entropy[mask], edges)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.85, lw=0)
            axes.set_ylim(0, 1.3 * max(1, heights.max()))
            axes.locator_params(axis="y", nbins=3, integer=True)
            axes.text(
                0.995,
                0.95,
                f"{name}: {mask.sum():,} inputs",
                color=colour,
                ha="right",
                va="top",
                transform=axes.transAxes,
            )
            axes.set_ylabel("inputs")
        grid[1].set_xlabel("entropy of the posterior predictive, nats")
    return picture


def plot_intervals(mean: Array, spread: Array, y: Array) -> Figure:
    """Draw predicted against observed values, with two deviations of the mean over the draws.

    Parameters
    ----------
    mean, spread
        Predictive mean and its standard deviation over draws, shape ``(test,)``.
    y
        Observations, shape ``(test,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A dot a test input, of at most 2,000 evenly spaced; bars show what the posterior does not
        know of the mean, without noise.
    """
    step = max(1, math.ceil(len(mean) / _POINTS))
    with look():
        picture = figure(3.2)
        axes = picture.subplots()
        ends = np.array([min(mean.min(), y.min()), max(mean.max(), y.max())])
        mean, spread, y = (values[::step] for values in (mean, spread, y))
        axes.plot(ends, ends, color=MUTED, lw=0.8, ls=(0, (3, 3)))
        axes.vlines(y, mean - 2 * spread, mean + 2 * spread, color=BLUE, alpha=0.3, lw=1.2)
        axes.scatter(y, mean, s=9, color=BLUE, lw=0)
        axes.set_xlabel("observed")
        axes.set_ylabel("predictive mean ± 2 sd over draws")
        axes.grid(color=RULE, lw=0.5)
        axes.set_axisbelow(True)
    return picture
