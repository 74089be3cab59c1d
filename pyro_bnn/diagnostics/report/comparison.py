"""The page of a comparison."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.report.environment import environment
from pyro_bnn.diagnostics.report.pieces import Picture, picture

if TYPE_CHECKING:
    from pyro_bnn.diagnostics.comparison.table import Comparison
    from pyro_bnn.diagnostics.plots.comparison import Point


def render_comparison(comparison: Comparison) -> str:
    """Fill the template.

    Parameters
    ----------
    comparison
        What `compare` returned.

    Returns
    -------
    str
        HTML.
    """
    rows = [
        (
            one.name,
            [
                (*comparison.cell(one, column), comparison.is_best(one, column))
                for column in comparison.columns
            ],
        )
        for one in comparison.entries
    ]
    page: str = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            rows=rows,
            columns=comparison.columns,
            notes=comparison.notes,
            has_reference=comparison.has_reference,
            pictures_shown=_pictures(comparison),
            number=number,
        )
    )
    return page


def _pictures(comparison: Comparison) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.comparison import plot_comparison

    shown = {}
    for column in comparison.columns:
        points: list[Point | None] = []
        for one in comparison.entries:
            value, ends = one.values.get(column.key), one.intervals.get(column.key)
            if ends is None or value is None or isinstance(value, str) or math.isnan(ends[0]):
                points.append(None)
            else:
                points.append((float(value), ends))
        if any(point is not None for point in points):
            shown[column.label] = points
    if not shown:
        return []
    return [
        picture(
            plot_comparison(shown, [one.name for one in comparison.entries]),
            "A panel for each column that has intervals, with a dot and a bar for each run.",
            "Numbers with their 95 % intervals.",
        )
    ]
