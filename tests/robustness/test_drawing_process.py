"""Pictures that another process draws while a run is diagnosed, and that process's death."""

from __future__ import annotations

import pytest

from pyro_bnn.diagnostics.report.of_trace import TracePictures, trace_pictures
from pyro_bnn.infer.cli import judging
from pyro_bnn.trace import open_trace

HERE = TracePictures([], [])


def test_another_process_draws_the_same(divided):
    file = divided / "trace.nc"
    with judging._drawn_meanwhile(file, lambda: HERE) as drawn, open_trace(file) as trace:
        here, there = trace_pictures(trace), drawn()
    assert there == here
    assert len(here.embeddings) >= 1
    assert len(here.quotient) >= 3


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_fails_costs_nothing(divided, monkeypatch, end):
    monkeypatch.setattr(judging, "_DRAW", end)
    with judging._drawn_meanwhile(divided / "trace.nc", lambda: HERE) as drawn:
        assert drawn() is HERE


def test_nothing_waits_for_pictures_that_nobody_wants(divided, monkeypatch):
    monkeypatch.setattr(judging, "_DRAW", "import time; time.sleep(600)")
    with (
        pytest.raises(KeyboardInterrupt),
        judging._drawn_meanwhile(divided / "trace.nc", lambda: HERE),
    ):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("bytes_", "processes"), [(0, 1), (2**60, 0)])
def test_a_report_of_a_large_trace_is_drawn_by_two(
    divided, tmp_path, two_threads, monkeypatch, bytes_, processes
):
    started = []

    def watched(command, **settings):
        started.append(command)
        raise RuntimeError("far enough")

    monkeypatch.setattr(judging, "_WORTH_A_PROCESS", bytes_)
    monkeypatch.setattr(judging.subprocess, "Popen", watched)
    monkeypatch.setattr(judging, "diagnose", watched)
    with pytest.raises(RuntimeError, match="far enough"):
        judging.judge(divided / "trace.nc", tmp_path / "s.json", tmp_path / "report.html")
    assert (str(divided / "trace.nc") in started[0]) == bool(processes)
