"""The progress line of a command: silent unless someone watches a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_line"]


def progress_line(
    before: str, after: str, *, quiet: bool = False, transient: bool = False
) -> Progress:
    """Return a bar on standard error: text, bar, done of all, text, and the time left.

    Rich takes a stream for a terminal where ``FORCE_COLOR`` is set, as notebooks and services that
    run tests set it; in their logs each of the line's states would stay.

    Parameters
    ----------
    before, after : str
        Formats of the two texts, which may name the fields of a task.
    quiet : bool
        Show nothing, terminal or not.
    transient : bool
        Take the line away at the end.
    """
    console = Console(stderr=True)
    watched = console.is_terminal and sys.stderr.isatty()
    return Progress(
        TextColumn(before),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn(after),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=quiet or not watched,
        transient=transient,
        refresh_per_second=4,
    )
