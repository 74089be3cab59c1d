"""Loss and density along the line between two modes, before and after alignment."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from pyro_bnn.diagnostics.barrier import Line
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.plots.style import RULE, SPACE_COLOURS, figure, look

_LABELS = {"weight": "as sampled", "canonical": "canonical"}
_DASHES = {"weight": (0, (4, 2)), "canonical": "solid"}


def plot_lines(lines: Mapping[str, Line]) -> Figure:
    """Draw the loss above, the log density below.

    Parameters
    ----------
    lines
        ``"weight"`` and ``"canonical"`` to the line between the same two draws.

    Returns
    -------
    matplotlib.figure.Figure
        The log density is relative to the best of all ends.
    """
    top = max(max(line.log_density[0], line.log_density[-1]) for line in lines.values())
    with look():
        picture = figure(3.7)
        above, below = picture.subplots(2, 1, sharex=True)
        for space, line in lines.items():
            style = {"color": SPACE_COLOURS[space], "ls": _DASHES[space]}
            label = f"{_LABELS[space]}: barrier {number(line.barrier)}"
            above.plot(line.at, line.loss, label=label, **style)
            below.plot(line.at, line.log_density - top, **style)
        above.set_ylabel("loss, nats a row")
        below.set_ylabel("log density")
        below.set_xlabel("share of the way from one chain's draw to the other's")
        for axes in (above, below):
            axes.grid(color=RULE, lw=0.5)
            axes.set_axisbelow(True)
            axes.set_xlim(0, 1)
        picture.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.2)
    return picture
