"""`pyro-bnn doctor`: facts, checks that pass, and checks that can fail."""

from __future__ import annotations

import platform

import pytest
import torch
from typer.testing import CliRunner

from pyro_bnn.infer.cli import doctor, host
from pyro_bnn.infer.cli.app import app


def test_facts_name_versions_devices_and_threads():
    found = dict(doctor.facts())
    assert found["python"].startswith(platform.python_version())
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert "cpu" in found["devices"]
    assert "idle now" in found["threads"]
    assert found["compiler"]


@pytest.mark.parametrize(
    ("asked", "threads"),
    [(None, 4), ("", 4), ("1", 1), ("3", 3), ("2,1", 2), ("64", 4), ("0", 4), ("many", 4)],
)
def test_no_more_threads_are_taken_than_the_environment_says(monkeypatch, asked, threads):
    monkeypatch.setattr(host, "idle_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert host.threads_to_use() == threads


def test_a_sound_installation_passes_and_a_broken_one_does_not(monkeypatch):
    monkeypatch.setattr(host, "idle_cores", lambda: 1)
    healthy = CliRunner().invoke(app, ["doctor"])
    assert healthy.exit_code == 0, healthy.output
    lines = [line.split() for line in healthy.output.splitlines()]
    assert [line[0] for line in lines if "pass" in line] == [
        "gradients",
        "sampling",
        "symmetry",
        "trace",
    ]

    right = doctor._linear
    monkeypatch.setattr(doctor, "_linear", lambda x, y: right(x, 2 * y))
    monkeypatch.setattr(doctor, "discover", lambda density: 1 / 0)
    broken = CliRunner().invoke(app, ["doctor"])
    assert broken.exit_code == 1
    found = dict(line.split(None, 1) for line in broken.output.split("\n\n")[1].splitlines())
    assert found["sampling"].startswith("FAIL")
    assert found["symmetry"] == "FAIL  ZeroDivisionError: division by zero"
    assert found["gradients"].startswith("pass")
