"""Rows of histograms on one axis: what the R-hat and the ESS picture share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import (
    INK,
    MUTED,
    RULE,
    SPACE_COLOURS,
    SPACE_NAMES,
    bare,
    figure,
    look,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """A horizontal axis: where a number goes, which are marked, and which are the rules."""

    place: Callable[[Array], Array]
    ticks: Sequence[float]
    rules: Sequence[float]
    label: str
    write: Callable[[float], str]


def rows(
    values: Mapping[str, Array], scale: Scale, note: Callable[[Array], str], bins: int = 48
) -> Figure:
    """Draw one histogram a space, one above the other on the same axis.

    Parameters
    ----------
    values
        Space to its numbers; numbers that are not finite are left out.
    scale
        The axis.
    note
        What stands beside a histogram, from its numbers.
    bins
        Bars over the width of the axis.

    Returns
    -------
    matplotlib.figure.Figure
        As many rows as spaces.
    """
    shown = {space: v[np.isfinite(v)] for space, v in values.items()}
    shown = {space: v for space, v in shown.items() if len(v)}
    everything = scale.place(np.concatenate(list(shown.values())))
    marks = scale.place(np.asarray(scale.rules, dtype=np.float64))
    low = min(everything.min(), marks.min())
    high = max(everything.max(), marks.max())
    margin = 0.04 * (high - low)
    edges = np.linspace(low - margin, high + margin, bins + 1)
    with look():
        picture = figure(0.62 + 0.88 * len(shown))
        grid = picture.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (space, numbers) in zip(grid, shown.items(), strict=True):
            heights, _ = np.histogram(scale.place(numbers), edges)
            axes.stairs(heights, edges, fill=True, color=SPACE_COLOURS[space], alpha=0.85, lw=0)
            for mark in marks:
                axes.axvline(mark, ymax=0.6, color=MUTED, lw=0.8, ls=(0, (3, 3)), zorder=0)
            axes.set_ylim(0, 1.7 * heights.max())
            bare(axes)
            axes.spines["bottom"].set_color(RULE)
            right = np.median(scale.place(numbers)) < (edges[0] + edges[-1]) / 2
            axes.text(
                0.995 if right else 0.005,
                0.97,
                SPACE_NAMES[space],
                transform=axes.transAxes,
                ha="right" if right else "left",
                va="top",
                color=INK,
                weight="bold",
            )
            axes.text(
                0.995 if right else 0.005,
                0.74,
                note(numbers),
                transform=axes.transAxes,
                ha="right" if right else "left",
                va="top",
                color=MUTED,
                fontsize=8.5,
            )
        places = scale.place(np.asarray(scale.ticks, dtype=np.float64))
        inside = (places >= edges[0]) & (places <= edges[-1])
        grid[-1].set_xticks(
            places[inside],
            [scale.write(t) for t, yes in zip(scale.ticks, inside, strict=True) if yes],
        )
        for axes in grid[:-1]:
            axes.tick_params(bottom=False)
        grid[-1].set_xlim(edges[0], edges[-1])
        grid[-1].set_xlabel(scale.label)
    return picture
