"""Calibration of continuous predictions: the probability integral transform."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import MUTED, POINT, POSTERIOR, RULE, figure, look

_COLOURS = {"posterior mean": POSTERIOR, "point estimate": POINT}
_LEVELS = np.linspace(0.0, 1.0, 101)


def plot_pit(pits: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draw how many observations fall into central intervals of each probability.

    Parameters
    ----------
    pits
        ``"posterior mean"`` and, where there is one, ``"point estimate"`` to the predictive
        distribution function at each observation, shape ``(test,)``.

    Returns
    -------
    matplotlib.figure.Figure
        Below the diagonal the intervals are too narrow; grey is where 95 % of calibrated
        predictions lie at each level.
    """
    with look():
        picture = figure(3.2)
        axes = picture.subplots()
        size = len(next(iter(pits.values())))
        band = 1.96 * np.sqrt(_LEVELS * (1 - _LEVELS) / size)
        axes.fill_between(_LEVELS, _LEVELS - band, _LEVELS + band, color=MUTED, alpha=0.18, lw=0)
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (3, 3)))
        for place, (name, pit) in enumerate(pits.items()):
            inside = np.mean(np.abs(pit[:, None] - 0.5) <= _LEVELS / 2, axis=0)
            axes.plot(_LEVELS, inside, color=_COLOURS[name], lw=1.6)
            axes.text(
                0.02, 0.94 - 0.08 * place, name, color=_COLOURS[name], transform=axes.transAxes
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("probability of the central predictive interval")
        axes.set_ylabel("observations inside")
        axes.grid(color=RULE, lw=0.5)
        axes.set_axisbelow(True)
    return picture
