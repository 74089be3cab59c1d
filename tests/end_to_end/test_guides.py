"""Guides on the command line: trace, quotient, report and resumption as for any sampler."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pyro_bnn.trace import open_trace

SHORT = [
    "--set=guide.epochs=5",
    "--set=guide.batch_size=8",
    "--set=guide.learning_rate=0.001",
    "--set=run.threads=1",
    "--chains=3",
]


@pytest.mark.parametrize(("recipe", "draws"), [("map", 1), ("swag", 6)])
def test_a_guide_makes_what_a_sampler_makes(command, script, tmp_path, recipe, draws):
    own = [f"--draws={draws}", "--set=run.segment_draws=4"]
    own += (
        ["--set=guide.collect_epochs=4", "--set=guide.rank=3", "--set=guide.collect_rate=0.001"]
        if recipe == "swag"
        else []
    )
    run = tmp_path / "run"
    outcome = command(
        "infer", script(), "--recipe", f"inference/{recipe}.toml", "--out", run, *SHORT, *own
    )
    assert outcome.code == 0, outcome.err
    assert f"{recipe}, 3 members, {draws} draws" in outcome.out
    with open_trace(run) as trace:
        assert trace["posterior"]["0.weight"].shape == (3, draws, 3, 2)
        assert trace["canonical_posterior"]["0.weight"].shape == (3, draws, 3, 2)
        assert trace["predictions"]["log_predictive"].shape == (3, draws, 10)
        assert trace.attrs["method"] == recipe
        assert json.loads(str(trace.attrs["members"])) == [0, 1, 2]
        assert json.loads(str(trace.attrs["failed_members"])) == []
        before = trace["posterior"]["0.weight"].to_numpy()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["draws"] == draws
    assert summary["test.nll"] is not None
    assert (run / "report.html").stat().st_size > 10_000
    # Resumed when nothing is left to do: the same trace; another recipe is refused.
    (run / "trace.nc").unlink()
    assert command("infer", "--resume", "--out", run, "--no-report").code == 0
    with open_trace(run) as trace:
        assert (trace["posterior"]["0.weight"].to_numpy() == before).all()
    command("infer", "--resume", "--out", run, "--set=guide.epochs=6").assert_refused(
        "guide.epochs = 5, not 6"
    )


def test_checkpoints_from_elsewhere_enter_the_quotient(command, script, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).half()
        torch.save(net.state_dict(), folder / f"{seed}.pt")
    (folder / "4.pt").write_bytes(b"")
    model = script(("gaussian(bnn(x), y)", "gaussian(bnn(x), y, noise=0.1)"))
    out = tmp_path / "elsewhere.nc"
    outcome = command("import", folder, "--model", model, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "4 files, 1 skipped" in outcome.out
    assert "4.pt: the file is empty" in outcome.out
    assert command("quotient", out, "--model", model).code == 0
    with open_trace(out) as trace:
        assert trace["canonical_posterior"]["0.weight"].shape == (4, 1, 3, 2)
        assert trace["posterior"]["0.weight"].dims[2] == trace["posterior"]["2.weight"].dims[3]
    command("import", tmp_path / "nowhere", "--model", model).assert_refused("holds no checkpoint")


def test_members_that_fail_are_told(command, script, tmp_path):
    outcome = command(
        *("infer", script(), "--recipe", "inference/map.toml", "--out", tmp_path / "run", *SHORT),
        *("--set=guide.fail_above=-1000.0", "--set=guide.retries=0", "--no-report"),
    )
    outcome.assert_refused("all 3 members failed to converge", "above -1000")
