"""Every study: at a tiny size among the slow tests, at ``--quick`` under the marker ``study``."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

from pyro_bnn import LogDensity
from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training

ROOT = Path(__file__).parents[2]

# A size that ends in seconds, and a column of the table with its smallest and largest value.
STUDIES = {
    "toy_figure": (["members=20", "block=20"], "second", (-50, 50)),
    "min_mass": (
        ["members=3", "sweep=0", "epochs=1", "rows=256"],
        "excess",
        (0, 1000),
    ),
    "permutation_dynamics": (["members=2", "epochs=8", "rows=256"], "tau", (-1, 1)),
    "exchangeability": (
        ["members=20", "chains=2", "draws=8", "warmup=5", "epochs=2"],
        "p",
        (0, 1),
    ),
    "mode_connectivity": (
        ["pairs=2", "members=4", "epochs=2", "chains=2", "draws=4", "warmup=5"],
        "barrier",
        (0, 1000),
    ),
    "functional_collapse": (["members=4", "block=4", "epochs=1"], "inside", (0, 0.694)),
    "temperature": (["chains=2", "draws=4", "warmup=3"], "accuracy", (0, 1)),
    "table1": (
        [
            "draws=8",  # four of a mode: fewer have no R-hat
            "modes=2",
            "warmup=3",
            "epochs=1",
            "members=6",
            "chains=2",
            "long=4",
            "resamples=5",
        ],
        "accuracy",
        (0, 1),
    ),
    "sampling_budget": (["modes=2", "draws=4", "warmup=3", "epochs=1"], "accuracy", (0, 1)),
}


def start_study(name: str, out: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "analysis" / f"{name}.py"), "--out", str(out), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def run_study(name: str, out: Path, *words: str) -> None:
    process = start_study(name, out, *words)
    _, told = process.communicate()
    assert process.returncode == 0, told


def examine(name: str, out: Path) -> None:
    _, column, (least, most) = STUDIES[name]
    table = pd.read_csv(out / "table.csv")
    assert len(table) > 0
    assert bool(table[column].between(least, most).all())
    if "rhat" in table:
        # Of one chain, or of one draw a chain, there is none.
        alone = (
            (table["modes"] == 1) | (table["draws"] == table["modes"])
            if "modes" in table
            else False
        )
        assert bool((table["rhat"].isna() == alone).all())
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "findings.md").read_text(encoding="utf-8")) > 100
    with xr.open_datatree(out / "trace.nc") as trace:
        assert trace["posterior"].sizes["chain"] > 0
        assert trace.attrs["study"] == name


def test_every_study_is_here():
    scripts = {
        path.stem
        for path in (ROOT / "analysis").glob("*.py")
        if "Study.start(" in path.read_text(encoding="utf-8") and path.stem != "study"
    }
    assert scripts == set(STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_runs_at_a_tiny_size(name, tmp_path):
    sizes, _, _ = STUDIES[name]
    words = [word for size in sizes for word in ("--set", size)]
    run_study(name, tmp_path / "out", "--workers", "1", *words)
    examine(name, tmp_path / "out")


@pytest.mark.slow
def test_a_study_that_is_killed_while_it_trains_goes_on_by_resume(tmp_path):
    sizes = ["members=8", "sweep=0", "epochs=1", "rows=256"]  # two blocks
    words = ["--workers", "1", *(word for size in sizes for word in ("--set", size))]
    run_study("min_mass", tmp_path / "whole", *words)
    out = tmp_path / "killed"
    process = start_study("min_mass", out, *words)
    while not list(out.glob("training/*/members/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (out / "table.csv").exists()
    run_study("min_mass", out, *words, "--resume")
    found, expected = ((one / "table.csv").read_bytes() for one in (out, tmp_path / "whole"))
    assert found == expected


def test_a_training_is_not_resumed_with_other_data_or_settings(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "analysis")
    import members
    import study

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def count(y, **changes):
        training = Training(epochs=2, batch_size=None, **changes)
        guide = PointEstimate(LogDensity(model, y), training)
        begun = study.Study("toy", tmp_path, None, "quick", 1, 0, True, 0.0)
        return members.fit(begun, Ensemble(guide, size=2), "members", 0).count

    y = torch.tensor([1.0, 2.0, 3.0])
    assert count(y) == 2
    assert count(y.clone()) == 0
    with pytest.raises(UserError, match=r"with the training data 3, sha256 \w+, not 3, sha256"):
        count(torch.tensor([1.0, 2.0, 3.5]))
    with pytest.raises(UserError, match=r"with the training data 3, .*, not 2, "):
        count(y[:2])
    with pytest.raises(UserError, match=r"with the setting learning_rate 0\.01, not 0\.1: resume"):
        count(y, learning_rate=0.1)
    assert count(y) == 0


@pytest.mark.study
@pytest.mark.parametrize("name", STUDIES)
def test_quick(name, tmp_path):
    run_study(name, tmp_path / "out", "--quick")
    examine(name, tmp_path / "out")


def test_a_number_that_no_study_has_is_refused(tmp_path, monkeypatch, capsys):
    """In this process: a study imports for seconds before it reads its arguments."""
    script = ROOT / "analysis" / "toy_figure.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(tmp_path), "--set", "wheels=4"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 2
    assert "wheels is none of members, block" in capsys.readouterr().err
