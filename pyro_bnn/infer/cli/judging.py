"""The last stage of a run: what its trace is worth, as a summary and a page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import torch
from rich.console import Console

from pyro_bnn.diagnostics import diagnose, summarize, summary_table, write_report, write_summary
from pyro_bnn.diagnostics.advice import next_steps
from pyro_bnn.diagnostics.report.of_trace import TracePictures, trace_pictures
from pyro_bnn.diagnostics.verdict import headline
from pyro_bnn.infer.child import start_python
from pyro_bnn.tasks import Map
from pyro_bnn.trace import open_trace
from pyro_bnn.trace.attributes import check_attributes
from pyro_bnn.trace.dead_chains import without_dead_chains

__all__ = ["Judged", "judge"]

_WORTH_A_PROCESS = 2**25
"""Bytes of a trace: another process imports for seconds before it draws, for small ones in vain."""

_DRAW = "from pyro_bnn.infer.cli.judging import draw; import sys; draw(sys.argv[1])"


class Judged(NamedTuple):
    """What a trace is worth.

    Attributes
    ----------
    summary : dict
        What ``summary.json`` holds.
    verdict : str
        What can be trusted, in a sentence.
    next_steps : list of str
        What to do about it, a sentence each.
    """

    summary: dict[str, float | int | str]
    verdict: str
    next_steps: list[str]

    def tell(self, out: Console) -> None:
        """Print the table, and the sentences in lines that fit a terminal."""
        out.print(summary_table(self.summary))
        for name, sentence in (("verdict", self.verdict), *(("next", s) for s in self.next_steps)):
            text = f"{name:<11}{sentence}"
            # Options and commands are to be copied: none is broken at its hyphens.
            line = fill(text, 80, subsequent_indent=" " * 11, break_on_hyphens=False)
            out.print(line)


def judge(
    trace_file: Path, summary_file: Path, report_file: Path | None, mapped: Map = map
) -> Judged:
    """Write the summary, and the report if it is wanted; return the summary and the verdict.

    Chains that the run calls dead are left out of both. With two threads or more, another process
    draws the pictures that need no diagnosis while this one diagnoses.
    """
    with ExitStack() as stack:
        whole = stack.enter_context(open_trace(trace_file))
        check_attributes(whole)
        trace = without_dead_chains(whole)
        drawn: Callable[[], TracePictures] = partial(trace_pictures, trace)
        large = trace_file.stat().st_size >= _WORTH_A_PROCESS
        if report_file is not None and large and torch.get_num_threads() > 1:
            drawn = stack.enter_context(_drawn_meanwhile(trace_file, drawn))
        found = diagnose(trace, mapped=mapped)
        summary = dict(summarize(trace, found))
        write_summary(summary_file, summary)
        if report_file is not None:
            write_report(trace, report_file, found, drawn)
        return Judged(summary, headline(found).text, next_steps(trace, found))


def draw(trace_file: str) -> None:
    """Draw the pictures of a trace and print them as JSON."""
    with open_trace(trace_file) as whole:
        sys.stdout.write(trace_pictures(without_dead_chains(whole)).to_json())


@contextmanager
def _drawn_meanwhile(
    trace_file: Path, here: Callable[[], TracePictures]
) -> Iterator[Callable[[], TracePictures]]:
    """Start a process that draws; yield what waits for it, and draws here if it has failed."""
    nothing = subprocess.DEVNULL
    process = start_python(_DRAW, str(trace_file), threads=1, stdin=nothing, stderr=nothing)

    def drawn() -> TracePictures:
        text, _ = process.communicate()
        return here() if process.returncode else TracePictures.from_json(text)

    with process:
        try:
            yield drawn
        finally:
            process.kill()
