"""The command ``pyro-bnn compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories or NetCDF traces.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="Run that MMD, agreement and total variation are measured to."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write .html, .md, .tex or .csv; printed if not given.")
    ] = None,
) -> None:
    """Put runs on one model script into one table.

    Example: pyro-bnn compare runs/hmc runs/nuts --reference runs/long --out table.html
    """
    from pyro_bnn.diagnostics.comparison import compare as side_by_side

    found = side_by_side(runs, reference)
    console = Console(highlight=False, soft_wrap=True)
    if out is None:
        console.print(found.to_markdown(), markup=False)
        return
    console.print(f"comparison {found.write(out)}")
    for note in found.notes:
        console.print(note, markup=False)
