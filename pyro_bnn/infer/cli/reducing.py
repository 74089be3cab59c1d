"""The reductions of a command: on the scheduler that it was given, with a line of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyro_bnn.infer.distributed import Scheduler
from pyro_bnn.infer.progress_line import progress_line
from pyro_bnn.tasks import Map

__all__ = ["reductions"]


def reductions(scheduler: Scheduler, stage: str) -> Map:
    """Return what maps tasks: over the workers of a scheduler, or one after another here.

    Parameters
    ----------
    scheduler : Scheduler
        Entered already.
    stage : str
        What the line in the terminal calls the tasks.
    """
    mapped: Map = map if scheduler.address == "none" else scheduler.map

    def shown(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        listed = list(tasks)
        with progress_line(f"{stage:<10}", "tasks", transient=True) as bar:
            line = bar.add_task("", total=len(listed))
            for result in mapped(function, listed):
                bar.advance(line)
                yield result

    return shown
