"""Reliability diagram: confidence against accuracy, posterior mean and point estimate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from pyro_bnn.diagnostics.metrics import Reliability
from pyro_bnn.diagnostics.plots.style import MUTED, POINT, POSTERIOR, RULE, bare, figure, look

_COLOURS = {"posterior mean": POSTERIOR, "point estimate": POINT}
_DASHES = ("solid", (0, (4, 2)))


def plot_reliability(tables: Mapping[str, Reliability]) -> Figure:
    """Draw how often predictions of a given confidence are right.

    Parameters
    ----------
    tables
        ``"posterior mean"`` and, where there is one, ``"point estimate"`` to their bins.

    Returns
    -------
    matplotlib.figure.Figure
        Above, accuracy a bin (the area of a dot is its share of inputs); below, how many inputs
        have which confidence.
    """
    with look():
        picture = figure(3.2)
        top, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (3, 3)))
        for place, (name, table) in enumerate(tables.items()):
            colour = _COLOURS[name]
            share = table.count / table.count.sum()
            line = {"color": colour, "ls": _DASHES[place], "lw": 1.2, "alpha": 0.8}
            top.plot(table.confidence, table.accuracy, label=name, **line)
            top.scatter(
                table.confidence, table.accuracy, s=10 + 140 * share, color=colour, alpha=0.8, lw=0
            )
            shift = 0.006 * (2 * place - 1)
            below.vlines(table.confidence + shift, 0, table.count, color=colour, lw=3)
        low = min(float(table.confidence.min()) for table in tables.values())
        top.set_xlim(max(0.0, low - 0.06), 1.02)
        top.set_ylim(-0.03, 1.05)
        top.set_ylabel("share right")
        top.grid(color=RULE, lw=0.5)
        top.set_axisbelow(True)
        bare(below)
        below.set_ylabel("inputs")
        below.set_xlabel("confidence (dashed: calibrated)")
        below.set_ylim(0, 1.1 * max(int(np.max(table.count)) for table in tables.values()))
        picture.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.2)
    return picture
