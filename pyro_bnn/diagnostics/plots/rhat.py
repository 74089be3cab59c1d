"""R-hat in the three spaces, on one axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.distributions import Scale, rows
from pyro_bnn.diagnostics.plots.style import (
    MUTED,
    RULE,
    SPACE_COLOURS,
    SPACE_NAMES,
    figure,
    look,
)

Array = NDArray[np.float64]

_FLOOR = 5e-4
_DASHES = {
    "weight": (0, (5, 2)),
    "canonical": (0, (1.2, 1.2)),
    "null": (0, (5, 1.5, 1.2, 1.5)),
    "function": "solid",
}

_SCALE = Scale(
    place=lambda rhat: np.log10(np.maximum(rhat - 1.0, _FLOOR)),
    ticks=(1.001, 1.01, 1.05, 1.2, 2.0, 5.0, 11.0),
    rules=(1.01, 1.05),
    label="R-hat (distance from 1 on a logarithmic axis; dashed: 1.01 and 1.05)",
    write=lambda tick: f"{tick:g}",
)


def plot_rhat(rhat: Mapping[str, Array]) -> Figure:
    """Draw the distribution of R-hat in each space.

    Parameters
    ----------
    rhat
        Space to its R-hats, shape ``(scalar,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A row a space; values at or below 1.0005 stand at the left end.
    """
    return rows(
        rhat,
        _SCALE,
        lambda numbers: f"median {np.median(numbers):.3f}, maximum {np.max(numbers):.3f}",
    )


def plot_rhat_overlaid(rhat: Mapping[str, Array]) -> Figure:
    """Draw the share of scalars above each value of R-hat, the spaces on top of each other.

    Parameters
    ----------
    rhat
        Space to its R-hats, shape ``(scalar,)``; what is not finite is left out.

    Returns
    -------
    matplotlib.figure.Figure
        A line a space, told apart by colour and dashes. The further right a line falls, the more
        the chains disagree.
    """
    with look():
        picture = figure(2.8)
        axes = picture.subplots()
        for space, values in rhat.items():
            sorted_ = np.sort(values[np.isfinite(values)])
            if not len(sorted_):
                continue
            places = _SCALE.place(sorted_)
            share = 1 - np.arange(1, len(places) + 1) / len(places)
            axes.step(
                np.concatenate([places[:1], places]),
                np.concatenate([[1.0], share]),
                where="post",
                color=SPACE_COLOURS[space],
                ls=_DASHES[space],
                label=SPACE_NAMES[space],
            )
        for rule in _SCALE.place(np.asarray(_SCALE.rules)):
            axes.axvline(rule, color=MUTED, lw=0.8, ls=(0, (3, 3)), zorder=0)
        low, high = axes.get_xlim()
        ticks = [t for t in _SCALE.ticks if low <= _SCALE.place(np.array(t)) <= high]
        axes.set_xticks(_SCALE.place(np.array(ticks)), [_SCALE.write(t) for t in ticks])
        axes.set_xlim(low, high)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("R-hat (dashed: 1.01 and 1.05)")
        axes.set_ylabel("share of scalars above")
        axes.grid(axis="y", color=RULE, lw=0.5)
        picture.legend(
            loc="outside upper left",
            ncols=3 if len(rhat) < 4 else 2,
            frameon=False,
            handlelength=2.2,
        )
    return picture
