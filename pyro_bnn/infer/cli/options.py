"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["SchedulerOption", "WorkersOption"]

SchedulerOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS|local|none",
        help="Where blocks are computed: on a Dask cluster, by workers of this machine, or in this "
        "process. The result is the same.",
    ),
]

WorkersOption = Annotated[
    int | None,
    typer.Option(help="Workers of --scheduler local; one a core, or a GPU, by default."),
]
