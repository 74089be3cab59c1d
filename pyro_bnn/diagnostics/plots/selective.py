"""Error against the share of inputs that are answered."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from pyro_bnn.diagnostics.plots.style import POINT, POSTERIOR, RULE, figure, look
from pyro_bnn.diagnostics.selective import SelectiveCurve

_COLOURS = {"posterior mean": POSTERIOR, "point estimate": POINT}


def plot_selective(curves: Mapping[str, SelectiveCurve]) -> Figure:
    """Draw the share of wrong answers among the surest.

    Parameters
    ----------
    curves
        ``"posterior mean"`` and, where there is one, ``"point estimate"`` to their curves.

    Returns
    -------
    matplotlib.figure.Figure
        A line each; at the right end all inputs are answered.
    """
    with look():
        picture = figure(2.6)
        axes = picture.subplots()
        for place, (name, curve) in enumerate(curves.items()):
            axes.plot(curve.coverage, curve.risk, color=_COLOURS[name], lw=1.6)
            axes.text(
                0.02,
                0.92 - 0.1 * place,
                f"{name}: area {curve.area:.3g}",
                color=_COLOURS[name],
                transform=axes.transAxes,
            )
        axes.set_xlim(0, 1)
        highest = max(float(curve.risk.max()) for curve in curves.values())
        axes.set_ylim(0, 1.25 * highest if highest > 0 else 1.0)
        axes.set_xlabel("share of inputs answered, the surest first")
        axes.set_ylabel("share wrong")
        axes.grid(color=RULE, lw=0.5)
        axes.set_axisbelow(True)
    return picture
