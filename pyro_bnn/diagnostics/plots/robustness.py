"""A score against the severity of corruptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import RULE, SERIES, figure, look

Array = NDArray[np.float64]
_MARKERS = "os^Dvp*X"


def plot_robustness(
    severities: Sequence[int],
    scores: Mapping[str, Array],
    label: str,
    clean: float | None = None,
) -> Figure:
    """Draw a line a corruption.

    Parameters
    ----------
    severities
        Mildest first.
    scores
        Corruption to its score at each severity, shape ``(severity,)``.
    label
        Name of the score.
    clean
        The score without corruption, drawn at severity 0; None leaves it out.

    Returns
    -------
    matplotlib.figure.Figure
        Lines differ in colour and in marker.
    """
    with look():
        picture = figure(3.3)
        axes = picture.subplots()
        at = list(severities) if clean is None else [0, *severities]
        for place, (name, values) in enumerate(scores.items()):
            line = values if clean is None else np.concatenate([[clean], values])
            axes.plot(
                at,
                line,
                marker=_MARKERS[place % len(_MARKERS)],
                ms=4.5,
                lw=1.1,
                color=SERIES[place % len(SERIES)],
                label=name,
            )
        axes.set_xticks(at)
        axes.set_xlabel("severity")
        axes.set_ylabel(label)
        axes.grid(axis="y", color=RULE, lw=0.5)
        axes.set_axisbelow(True)
        picture.legend(
            loc="outside upper left",
            ncols=2 if len(scores) > 3 else 3,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.2,
        )
    return picture
