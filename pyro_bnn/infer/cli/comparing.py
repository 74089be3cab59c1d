"""The command ``pyro-bnn compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyro_bnn.infer.cli.options import SchedulerOption, WorkersOption
from pyro_bnn.infer.cli.telling import console


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories or NetCDF traces.")],
    reference: Annotated[
        Path | None,
        typer.Option(help="Run that MMD, agreement and total variation are measured to."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write .html, .md, .tex or .csv; printed if not given.")
    ] = None,
    scheduler: SchedulerOption = "none",
    workers: WorkersOption = None,
) -> None:
    """Put runs on one model script into one table.

    Example: pyro-bnn compare runs/hmc runs/nuts --reference runs/long
    """
    from pyro_bnn.diagnostics.comparison import compare as side_by_side
    from pyro_bnn.infer.cli.reducing import reductions
    from pyro_bnn.infer.distributed import Scheduler
    from pyro_bnn.trace import check_trace

    for run in runs if reference is None else [*runs, reference]:
        check_trace(run)
    with Scheduler(scheduler, workers=workers) as where:
        found = side_by_side(runs, reference, mapped=reductions(where, "comparing"))
    screen = console()
    if out is None:
        screen.print(found.to_markdown())
        return
    screen.print(f"comparison {found.write(out)}")
    for note in found.notes:
        screen.print(note)
