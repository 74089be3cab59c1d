"""A comparison as a data frame, in LaTeX, in Markdown and as a page."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_bnn.diagnostics.comparison.columns import COLUMNS, Column
from pyro_bnn.diagnostics.comparison.entry import Entry
from pyro_bnn.diagnostics.format import ABSENT, number
from pyro_bnn.errors import UserError
from pyro_bnn.trace.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "²": "$^2$", ABSENT: "--"}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes
    ----------
    entries
        A row each.
    notes
        In what the runs differ and what could not be computed, in sentences.
    has_reference
        Whether distances to a reference were asked for.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    has_reference: bool

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that at least one run fills."""
        return tuple(c for c in COLUMNS if any(c.key in one.values for one in self.entries))

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers, a row a run; an interval is ``<key>.low`` and ``<key>.high``."""
        import pandas as pd

        rows = []
        for one in self.entries:
            row = {}
            for column in self.columns:
                row[column.key] = one.values.get(column.key, math.nan)
                if any(column.key in other.intervals for other in self.entries):
                    ends = one.intervals.get(column.key, (math.nan, math.nan))
                    row[f"{column.key}.low"], row[f"{column.key}.high"] = ends
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index([one.name for one in self.entries], name="run"))

    def cell(self, one: Entry, column: Column) -> tuple[str, str]:
        """Write a number and its interval; the interval is empty if there is none."""
        value = one.values.get(column.key)
        ends = one.intervals.get(column.key)
        if ends is None or any(math.isnan(end) for end in ends):
            return number(value), ""
        return number(value), f"{number(ends[0])} to {number(ends[1])}"

    def is_best(self, one: Entry, column: Column) -> bool:
        """Whether a run has the best number of a column, unless all are equal."""
        if column.better is None:
            return False
        known = [
            float(value)
            for other in self.entries
            if not isinstance(value := other.values.get(column.key, math.nan), str)
            and not math.isnan(value)
        ]
        own = one.values.get(column.key)
        if own is None or isinstance(own, str) or min(known, default=0) == max(known, default=0):
            return False
        return float(own) == (min(known) if column.better == "lower" else max(known))

    def to_markdown(self) -> str:
        """Return a Markdown table, the best number of a column in bold."""
        head = ["Run", *(column.label for column in self.columns)]
        lines = [head, ["---", *("---:" for _ in self.columns)]]
        for one in self.entries:
            cells = [one.name.replace("|", r"\|")]
            for column in self.columns:
                value, interval = self.cell(one, column)
                value = f"**{value}**" if self.is_best(one, column) else value
                cells.append(f"{value} ({interval})" if interval else value)
            lines.append(cells)
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n\n{note}" for note in self.notes)
        return f"{table}{notes}\n"

    def to_latex(self) -> str:
        """Return a LaTeX tabular for the package booktabs, the best number of a column in bold."""
        head = ["Run", *(column.label for column in self.columns)]
        lines = [
            rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(map(_latex, head)) + r" \\",
            r"\midrule",
        ]
        for one in self.entries:
            cells = [_latex(one.name)]
            for column in self.columns:
                value, interval = map(_latex, self.cell(one, column))
                value = rf"\textbf{{{value}}}" if self.is_best(one, column) else value
                cells.append(rf"{value} {{\tiny ({interval})}}" if interval else value)
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def to_html(self) -> str:
        """Return a self-contained page with the table and pictures."""
        from pyro_bnn.diagnostics.report.comparison import render_comparison

        return render_comparison(self)

    def write(self, path: str | Path) -> Path:
        """Write the comparison in the format that the file's name ends in.

        Parameters
        ----------
        path
            Ends in ``.html``, ``.md``, ``.tex`` or ``.csv``.

        Returns
        -------
        Path
            The file, written whole or not at all.

        Raises
        ------
        UserError
            If it ends in something else.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".html": self.to_html,
            ".md": self.to_markdown,
            ".tex": self.to_latex,
            ".csv": lambda: self.to_frame().to_csv(),
        }
        if path.suffix not in writers:
            raise UserError(
                f"{path} is to be written as '{path.suffix}': end its name in {', '.join(writers)}."
            )
        with replacing(path) as temporary:
            temporary.write_text(writers[path.suffix](), encoding="utf-8")
        return path


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
