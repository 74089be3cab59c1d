"""Collections and runs in blocks from the command line."""

from __future__ import annotations

import json

import numpy as np
import torch

from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import Collection, open_trace


def test_a_folder_becomes_a_collection_is_divided_and_judged(command, script, tmp_path):
    loaded = ModelScript.load(script())
    density = LogDensity(loaded.model, loaded.data.train.x, loaded.data.train.y)
    (tmp_path / "in").mkdir()
    for seed in range(5):
        torch.manual_seed(seed)
        state = {name: torch.randn(site.shape) for name, site in density.sites.items()}
        torch.save(state, tmp_path / "in" / f"{seed}.pt")
    model, nets = f"--model={script()}", tmp_path / "nets"
    done = command("import", tmp_path / "in", model, f"--collection={nets}")
    assert done.code == 0, done.err
    assert "5 files, 0 skipped" in done.out
    damaged = nets / "members" / "3.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])

    done = command("quotient", nets, model)

    assert done.code == 0, done.err
    assert "skipped    3: its file has" in done.out
    assert "4 members" in done.out
    assert Collection.open(nets / "canonical").names == ["0", "1", "2", "4"]
    assert command("report", nets).code == 0
    assert (nets / "report.html").is_file()
    assert json.loads((nets / "summary.json").read_text())["chains"] == 4


def test_a_run_in_blocks_is_a_run_like_any(infer, script, tmp_path):
    out = tmp_path / "run"
    done = infer(script(), "--chains=4", "--set=run.block=2", f"--out={out}", "--no-report")
    assert done.code == 0, done.err
    assert "blocks     of 2, in this process" in done.out
    with open_trace(out) as trace:
        assert dict(trace["posterior"].sizes)["chain"] == 4
        assert "canonical_posterior" in trace.children
        assert trace.attrs["gradient_path"] == "ATen graph, eager"
        assert "lay_out_products" in trace.attrs["gradient_passes"]
        before = trace["posterior"]["0.weight"].to_numpy()
    done = infer("--chains=4", "--set=run.block=2", f"--out={out}", "--no-report", "--resume")
    assert done.code == 0, done.err
    with open_trace(out) as trace:
        np.testing.assert_array_equal(trace["posterior"]["0.weight"], before)


def test_a_scheduler_that_is_not_there_is_told(infer, script, tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_bnn.infer.distributed.scheduler.ANSWERS_WITHIN", 1)
    out = tmp_path / "run"
    done = infer(script(), "--scheduler=tcp://127.0.0.1:1", f"--out={out}")
    done.assert_refused("no Dask scheduler answers at tcp://127.0.0.1:1")
    assert not (out / "recipe.toml").exists()
