"""The summary as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.summary import Value

_SCORES = (
    ("accuracy", "accuracy"),
    ("rmse", "RMSE"),
    ("nll", "negative log likelihood"),
    ("brier", "Brier score"),
    ("ece", "calibration error (ECE)"),
    ("coverage90", "coverage of 90 % intervals"),
)
_SPACES = (("weight", "weights"), ("canonical", "canonical weights"), ("function", "functions"))
_COST = (
    ("divergences", "divergences"),
    ("nan", "draws with NaN"),
    ("gradients", "gradient evaluations"),
    ("seconds", "seconds"),
)


def summary_table(summary: Mapping[str, Value]) -> Table:
    """Lay out the main numbers of a summary in at most 80 columns.

    Parameters
    ----------
    summary
        What `summarize` returned.

    Returns
    -------
    rich.table.Table
        Print it with `rich.print` or a `rich.console.Console`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", width=78)
    table.add_column("")
    for _ in range(4):
        table.add_column("", justify="right")
    _predictions(table, summary)
    _spaces(table, summary)
    cost = [(label, summary[key]) for key, label in _COST if key in summary]
    for label, value in cost:
        table.add_row(label, number(value))
    return table


def _predictions(table: Table, summary: Mapping[str, Value]) -> None:
    rows = [
        (label, summary.get(f"test.{key}"), summary.get(f"point.{key}"))
        for key, label in _SCORES
        if f"test.{key}" in summary or f"point.{key}" in summary
    ]
    if not rows:
        return
    table.add_row("On the test split", "posterior", "point", style="bold")
    for label, posterior, point in rows:
        table.add_row(label, number(posterior), number(point))
    table.add_section()
    table.add_row("")


def _spaces(table: Table, summary: Mapping[str, Value]) -> None:
    spaces = [(space, label) for space, label in _SPACES if f"rhat.{space}.max" in summary]
    if not spaces:
        return
    table.add_row("Convergence", "R-hat median", "maximum", "ESS median", "minimum", style="bold")
    for space, label in spaces:
        keys = (
            f"rhat.{space}.median",
            f"rhat.{space}.max",
            f"ess.{space}.median",
            f"ess.{space}.min",
        )
        table.add_row(label, *(number(summary.get(key), key.startswith("rhat")) for key in keys))
    table.add_row("")
