"""Inputs from elsewhere in a run, and ``pyro-bnn compare`` over two runs."""

from __future__ import annotations

import json

import pytest

from pyro_bnn.trace import open_trace

ELSEWHERE = (
    'Split(x[20:], y[20:]), name="a sine")',
    'Split(x[20:], y[20:]), {"far": Split(x[:4] + 9, y[:4]), "near": Split(x[:3], y[:3])})',
)


@pytest.fixture
def runs(infer, script, tmp_path):
    """Return two run directories of one script, of different kernels' settings."""
    model = script(ELSEWHERE)
    for name, steps in (("short", 4), ("long", 8)):
        done = infer(model, "--out", tmp_path / name, f"--set=kernel.num_steps={steps}")
        assert done.code == 0, done.err
    return [tmp_path / "short", tmp_path / "long"]


def test_splits_from_elsewhere_are_predicted_and_runs_compared(runs, command, tmp_path):
    with open_trace(runs[0]) as trace:
        group = trace["predictions_ood"]
        assert dict(group.sizes) == {"chain": 3, "draw": 12, "test": 7}
        assert list(group.data_vars) == ["mean"]
        assert json.loads(group.attrs["splits"]) == {"far": 4, "near": 3}
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert 0 <= summary["ood.auroc"] <= 1

    printed = command("compare", *runs, "--reference", runs[1])
    assert printed.code == 0, printed.err
    assert printed.out.startswith("| Run | Method |")
    assert "| short |" in printed.out

    written = command("compare", *runs, "--out", tmp_path / "table.tex")
    assert written.code == 0, written.err
    assert "\\toprule" in (tmp_path / "table.tex").read_text()

    command("compare", *runs, "--out", tmp_path / "table.doc").assert_refused(".doc", ".html")
    command("compare", tmp_path / "absent").assert_refused("absent")
