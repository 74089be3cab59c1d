"""The page of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyro_bnn.diagnostics.comparison.columns import Column, Group
from pyro_bnn.diagnostics.report.environment import environment
from pyro_bnn.diagnostics.report.pieces import Picture, picture

if TYPE_CHECKING:
    from pyro_bnn.diagnostics.comparison.entry import Entry
    from pyro_bnn.diagnostics.comparison.table import Comparison
    from pyro_bnn.diagnostics.plots.comparison import Point


_GROUPS: dict[Group, tuple[str, str]] = {
    "reference": (
        "Distance to the reference",
        "Of the weights as sampled (MMD²), of canonical weights (NS), and of predictions.",
    ),
    "predictions": ("Predictions on the test split", "Scores of the posterior mean."),
    "elsewhere": (
        "Uncertainty elsewhere",
        "How well inputs from elsewhere are detected, and what the draws disagree on there.",
    ),
    "cost": (
        "Convergence and cost",
        "In function space. Seconds and gradients of a single run are counted, not estimated.",
    ),
}


def render_comparison(comparison: Comparison) -> str:
    """Fill the template.

    Parameters
    ----------
    comparison
        What `compare` returned.

    Returns
    -------
    str
        HTML: a table and a picture for each group of columns.
    """
    parts = []
    for key, (title, hint) in _GROUPS.items():
        columns = [column for column in comparison.columns if column.group == key]
        if columns:
            rows = [(one.name, _cells(comparison, one, columns)) for one in comparison.entries]
            parts.append((title, hint, columns, rows, _pictures(comparison, columns, title)))
    named = [column for column in comparison.columns if not column.group]
    page: str = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            runs=[(one.name, _cells(comparison, one, named)) for one in comparison.entries],
            named=named,
            parts=parts,
            columns=comparison.columns,
            notes=comparison.notes,
            has_reference=comparison.has_reference,
        )
    )
    return page


def _cells(
    comparison: Comparison, one: Entry, columns: Sequence[Column]
) -> list[tuple[str, str, bool]]:
    return [(*comparison.cell(one, column), comparison.is_best(one, column)) for column in columns]


def _pictures(comparison: Comparison, columns: Sequence[Column], title: str) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.comparison import plot_comparison

    shown = {}
    for column in columns:
        points: list[Point | None] = []
        for one in comparison.entries:
            value, ends = one.values.get(column.key), one.intervals.get(column.key)
            if ends is None or value is None or isinstance(value, str) or math.isnan(ends[0]):
                points.append(None)
            else:
                points.append((float(value), ends))
        # A panel of one dot among several runs compares nothing.
        if sum(point is not None for point in points) >= min(2, len(points)):
            shown[column.label] = points
    if not shown:
        return []
    return [
        picture(
            plot_comparison(shown, [one.name for one in comparison.entries]),
            f"{title}: a panel for each of {', '.join(shown)}, a dot and a bar for each run.",
            "Numbers with their 95 % intervals.",
        )
    ]
