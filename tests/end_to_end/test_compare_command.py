"""Inputs from elsewhere in a run, and ``pyro-bnn compare`` over two runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pyro_bnn.trace import open_trace

ELSEWHERE = (
    'Split(x[20:], y[20:]), name="a sine")',
    'Split(x[20:], y[20:]), {"far": Split(x[:4] + 9, y[:4]), "near": Split(x[:3], y[:3])},'
    ' corruptions={"shift": lambda x, severity, generator: x + severity})',
)


@pytest.fixture
def runs(infer, script, tmp_path):
    """Return two run directories of one script, of different kernels' settings."""
    model = script(ELSEWHERE)
    for name, steps, *unread in (("short", 4), ("long", 8, "--no-report")):
        done = infer(model, "--out", tmp_path / name, f"--set=kernel.num_steps={steps}", *unread)
        assert done.code == 0, done.err
    return [tmp_path / "short", tmp_path / "long"]


def test_splits_from_elsewhere_are_predicted_and_runs_compared(runs, command, tmp_path):
    with open_trace(runs[0]) as trace:
        group = trace["predictions_ood"]
        assert dict(group.sizes) == {"chain": 3, "draw": 12, "test": 7}
        assert list(group.data_vars) == ["mean"]
        assert json.loads(group.attrs["splits"]) == {"far": 4, "near": 3}
        rows = trace["log_likelihood"]
        assert dict(rows.sizes) == {"chain": 3, "draw": 12, "train": 20}
        assert rows["train"].to_numpy().tolist() == list(range(20))
        corrupted = trace["predictions_corrupted"]
        assert dict(corrupted.sizes) == {"corruption": 1, "severity": 5, "test": 10}
        loss = -corrupted["log_predictive"].mean("test").to_numpy()[0]
        assert loss[4] > loss[0]
        line = trace["mode_line"]
        assert line["space"].to_numpy().tolist() == ["weight", "canonical"]
        # Both lines join the same two functions.
        ends = line["loss"].isel(at=[0, -1]).to_numpy()
        np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4)
        null = line["null_loss"].isel(at=[0, -1]).to_numpy()
        np.testing.assert_allclose(null[0], null[1], rtol=1e-4)
        assert len({float(one) for one in null[0].ravel()}) == null[0].size
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert 0 <= summary["ood.auroc"] <= 1
    assert summary["loo.rows"] == 20
    assert summary["corrupted.rmse"] > 0

    printed = command("compare", *runs, "--reference", runs[1])
    assert printed.code == 0, printed.err
    assert printed.out.startswith("| Run | Method |")
    assert "| short |" in printed.out

    written = command("compare", *runs, "--out", tmp_path / "table.tex")
    assert written.code == 0, written.err
    assert "\\toprule" in (tmp_path / "table.tex").read_text()

    command("compare", *runs, "--out", tmp_path / "table.doc").assert_refused(".doc", ".html")
    command("compare", tmp_path / "absent").assert_refused("absent")
