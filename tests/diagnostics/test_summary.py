"""The summary and its file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from arviz_stats.base import array_stats
from rich.console import Console

from pyro_bnn.diagnostics import SUMMARY_KEYS, summarize, summary_table, write_summary
from pyro_bnn.diagnostics.diagnosis import Diagnosis

IDENTITIES = xr.Dataset(
    {
        "kind": ("statement", ["virial"]),
        "where": ("statement", ["h0"]),
        "value": ("statement", [2.1]),
        "expectation": ("statement", [2.0]),
        "z": ("statement", [1.0]),
    }
)


def test_every_key_is_documented_and_every_documented_key_occurs(make_trace) -> None:
    seen: set[str] = set()
    for likelihood in ("categorical", "bernoulli", "continuous"):
        trace = make_trace(likelihood, draws=30)
        trace["sample_stats"]["tree_depth"] = trace["sample_stats"]["n_steps"]
        if likelihood == "continuous":
            trace["point_estimate"]["cdf"] = trace["predictions"]["cdf"][0, 0]
        trace["identities"] = xr.DataTree(IDENTITIES)
        trace.attrs["dead_chains"] = "[1, 3]"
        trace.attrs["batching"] = "one member at a time: as asked for"
        seen |= set(summarize(trace))
    assert seen == set(SUMMARY_KEYS)
    assert summarize(trace)["dead_chains"] == 2
    assert summarize(trace)["batching"] == "one member at a time: as asked for"
    assert all(SUMMARY_KEYS.values())


def test_numbers_of_the_sampler(trace: xr.DataTree, diagnosis: Diagnosis) -> None:
    summary = summarize(trace, diagnosis)
    assert summary["chains"] == 4
    assert summary["draws"] == 100
    assert summary["weights"] == 39
    assert summary["divergences"] == 5
    assert summary["gradients"] == 120_000
    assert summary["seconds"] == 73.5
    assert summary["bfmi.min"] == pytest.approx(
        float(array_stats.bfmi(trace["sample_stats"]["energy"].to_numpy()).min())
    )
    assert summary["symmetry.log_order"] == pytest.approx(np.log(24))
    ess = summary["ess.function.median"]
    assert summary["ess.function.per_second"] == pytest.approx(ess / 73.5)


def test_a_diagnosis_is_not_computed_again(trace: xr.DataTree, diagnosis: Diagnosis) -> None:
    assert summarize(trace, diagnosis)["scalars.weight"] == 20


def test_keys_of_missing_groups_are_left_out(trace: xr.DataTree) -> None:
    bare = xr.DataTree.from_dict({"posterior": trace["posterior"].to_dataset()})
    summary = summarize(bare)
    assert summary["rhat.weight.max"] > 1
    for prefix in ("test.", "point.", "rhat.canonical", "rhat.function", "divergences", "seconds"):
        assert not any(key.startswith(prefix) for key in summary)
    assert summarize(xr.DataTree()) == {"weights": 0, "chains": 0, "draws": 0, "nan": 0}


def test_nan_draws_are_counted(trace: xr.DataTree) -> None:
    broken = trace.copy(deep=True)
    broken["posterior"]["0.weight"][1, 3, 0, 0] = np.nan
    broken["posterior"]["0.weight"][1, 3, 1, 0] = np.nan
    broken["posterior"]["0.bias"][2, 5, 0] = np.inf
    summary = summarize(broken)
    assert summary["nan"] == 2
    assert summary["nonfinite.weight"] == 3
    assert np.isfinite(summary["rhat.weight.max"])


def test_file_holds_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    summary = {"chains": 1, "rhat.weight.max": float("nan"), "test.nll": float("inf"), "model": "m"}
    path = write_summary(tmp_path / "summary.json", summary)
    assert json.loads(path.read_text()) == {
        "chains": 1,
        "rhat.weight.max": None,
        "test.nll": None,
        "model": "m",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_one_chain_has_no_rhat(make_trace, tmp_path: Path) -> None:
    summary = summarize(make_trace(chains=1))
    assert np.isnan(summary["rhat.weight.median"])
    assert summary["ess.weight.median"] > 1
    written = json.loads(write_summary(tmp_path / "s.json", summary).read_text())
    assert written["rhat.weight.median"] is None


@pytest.mark.parametrize("likelihood", ["categorical", "continuous"])
def test_table_fits_80_columns(make_trace, likelihood: str) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(summarize(make_trace(likelihood, draws=30))))
    lines = console.export_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert "canonical weights" in text
    assert "120,000" in text


@pytest.mark.parametrize("likelihood", ["categorical", "continuous"])
def test_a_trace_without_draws_has_a_summary(make_trace, likelihood: str) -> None:
    nothing = make_trace(likelihood, draws=20, tests=4).isel(draw=slice(0, 0))
    summary = summarize(nothing)
    assert summary["draws"] == 0
    assert not any(key.startswith("rhat") for key in summary)
