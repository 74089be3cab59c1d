"""Acceptance rate and step size over the draws."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, GREEN, RULE, figure, look

Array = NDArray[np.float64]
_POINTS = 400


def plot_adaptation(acceptance: Array | None, step_size: Array | None) -> Figure:
    """Draw the median over chains and the range from the lowest to the highest chain.

    Parameters
    ----------
    acceptance, step_size
        Shape ``(chain, draw)``; None where not recorded.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each that is given; long runs are averaged over neighbouring draws.
    """
    given = [
        (values, name, colour)
        for values, name, colour in (
            (acceptance, "acceptance rate", BLUE),
            (step_size, "step size", GREEN),
        )
        if values is not None
    ]
    with look():
        picture = figure(0.5 + 1.2 * len(given))
        grid = picture.subplots(len(given), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (values, name, colour) in zip(grid, given, strict=True):
            at, thin = _thinned(values)
            axes.fill_between(at, thin.min(axis=0), thin.max(axis=0), color=colour, alpha=0.2, lw=0)
            axes.plot(at, np.median(thin, axis=0), color=colour)
            axes.set_ylabel(name)
            axes.set_ylim(bottom=0, top=1.02 if name == "acceptance rate" else None)
            axes.locator_params(axis="y", nbins=4)
            axes.grid(axis="y", color=RULE, lw=0.5)
            axes.set_xlim(0, values.shape[1])
        grid[-1].set_xlabel("draw (line: median chain; band: all chains)")
    return picture


def _thinned(values: Array) -> tuple[Array, Array]:
    step = max(1, values.shape[1] // _POINTS)
    points = values.shape[1] // step
    thin = values[:, : points * step].reshape(len(values), points, step).mean(axis=2)
    return (np.arange(points) + 0.5) * step, thin
