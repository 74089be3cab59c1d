"""The table of several runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pyro_bnn.diagnostics.comparison import COLUMNS, Comparison, compare
from pyro_bnn.diagnostics.comparison.entry import Entry
from pyro_bnn.diagnostics.comparison.seeds import over_seeds
from pyro_bnn.errors import UserError

MakeTrace = Callable[..., xr.DataTree]


def run(make_trace: MakeTrace, seed: int = 0, method: str = "hmc", **sizes: int) -> xr.DataTree:
    """Make a run on one data set by a method of its own."""
    trace = make_trace(seed=seed, **sizes)
    trace["predictions_constant_data"] = make_trace(seed=0)["predictions_constant_data"]
    trace.attrs |= {"method": method, "seed": seed}
    trace.attrs["recipe"] = f'[kernel]\nname = "{method}"\n[run]\nseed = {seed}\n'
    return trace


@pytest.fixture(scope="module")
def two(make_trace: MakeTrace) -> dict[str, xr.DataTree]:
    return {
        "first_hmc": run(make_trace, draws=30),
        "nuts": run(make_trace, 1, "nuts", draws=30),
    }


@pytest.fixture(scope="module")
def table(two: dict[str, xr.DataTree]) -> Comparison:
    return compare(two, two["first_hmc"].copy(), resamples=30)


def test_every_column_is_filled_and_explained(table: Comparison, make_trace: MakeTrace) -> None:
    numbers = compare({"a": make_trace("continuous", draws=30)}, resamples=5)
    densities = np.random.default_rng(0).normal(-1, 0.1, size=(4, 30, 6))
    rows = xr.Dataset({"y": (("chain", "draw", "row"), densities)})
    tree = xr.DataTree.from_dict({"log_likelihood": rows})
    left_out = compare({"a": tree}, resamples=5)
    seen = {column.key for found in (table, numbers, left_out) for column in found.columns}
    assert seen == {column.key for column in COLUMNS}


def test_numbers_are_those_of_the_diagnostics(table: Comparison, two) -> None:
    frame = table.to_frame()
    trace = two["first_hmc"]
    mean = trace["predictions"]["mean"].to_numpy().reshape(120, 40, 3).mean(axis=0)
    y = trace["predictions_constant_data"]["y"].to_numpy()
    assert frame.loc["first_hmc", "accuracy"] == np.mean(mean.argmax(1) == y)
    assert frame.loc["first_hmc", "agreement"] == 1
    assert frame.loc["first_hmc", "modes"] == 2
    assert frame.loc["first_hmc", "seconds"] == 73.5
    assert frame.loc["nuts", "mmd"] > frame.loc["nuts", "mmd.low"] > 0
    assert frame.loc["first_hmc", "mmd"] < 0.01
    low, high = frame.loc["nuts", "nll.low"], frame.loc["nuts", "nll.high"]
    assert low < frame.loc["nuts", "nll"] < high
    assert frame["stacking"].sum() == pytest.approx(1)


def test_formats_agree(table: Comparison, tmp_path: Path) -> None:
    markdown = table.to_markdown().splitlines()
    assert markdown[0].startswith("| Run | Method |")
    assert len({line.count("|") for line in markdown[:4]}) == 1
    latex = table.to_latex()
    assert latex.count(r"\\") == 3
    assert r"first\_hmc & hmc" in latex
    assert r"\textbf{" in latex
    page = table.write(tmp_path / "table.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "first_hmc" in page
    assert "<img" in page
    frame = pd.read_csv(table.write(tmp_path / "table.csv"), index_col=0)
    pd.testing.assert_frame_equal(frame, table.to_frame(), check_names=False)
    with pytest.raises(UserError, match=r"'\.pdf'.*\.html, \.md, \.tex, \.csv"):
        table.write(tmp_path / "table.pdf")
    assert pd.read_csv(io.StringIO(table.to_frame().to_csv())).shape[0] == 2


def test_seeds_become_one_row_with_students_interval(make_trace: MakeTrace) -> None:
    runs = {f"seed{k}": run(make_trace, k, draws=20) for k in range(3)}
    alone = {name: compare({name: one}, resamples=0).to_frame() for name, one in runs.items()}
    frame = compare(runs, resamples=0).to_frame()
    assert list(frame.index) == ["seed0 (mean of 3 seeds)"]
    values = np.array([one["nll"].iloc[0] for one in alone.values()])
    assert frame["nll"].iloc[0] == pytest.approx(values.mean())
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)
    assert frame["nll.high"].iloc[0] == pytest.approx(values.mean() + half, rel=1e-5)


def test_a_mean_that_is_no_number_has_no_interval() -> None:
    first, second = (Entry("a", {"loo": loo}, {}, None, ()) for loo in (float("nan"), -0.3))
    both = over_seeds([first, second])
    assert np.isnan(both.values["loo"])
    assert both.intervals == {}


def test_the_same_run_twice_is_not_two_seeds(make_trace: MakeTrace) -> None:
    one = run(make_trace, draws=20)
    assert len(compare({"a": one, "b": one}, resamples=0).entries) == 2


def test_scores_on_other_labels_are_left_out(make_trace: MakeTrace) -> None:
    first, other = run(make_trace, draws=20), make_trace(seed=3, draws=20)
    other.attrs["data"] = "moons"
    found = compare({"a": first, "b": other}, reference=run(make_trace, 5, draws=20), resamples=0)
    text = " ".join(found.notes)
    assert "a and b were judged on different test splits (40 and 40 labels)" in text
    assert "differ in their data (a: not stated, b: moons)" in text
    values = [one.values for one in found.entries]
    assert {"accuracy", "nll", "aupr", "agreement"} <= set(values[0])
    assert {"accuracy", "nll", "aupr", "agreement", "stacking"}.isdisjoint(values[1])
    assert {"mmd", "ns", "rhat", "ess", "seconds"} <= set(values[1])
    assert "left out" in found.to_html()


def test_other_models_are_said(make_trace: MakeTrace) -> None:
    first = run(make_trace, draws=20)
    other = run(make_trace, 1, "nuts", draws=20, hidden=5)
    other.attrs["model"] = "wider"
    found = compare({"a": first, "b": other}, reference=first.copy(), resamples=0)
    text = " ".join(found.notes)
    assert "differ in their model (a: synthetic_mlp, b: wider)" in text
    assert "The weights of a and b have different names or shapes" in text
    assert "b: no distance to the reference" in text
    assert "mmd" in found.entries[0].values
    assert "mmd" not in found.entries[1].values


def test_a_distance_of_few_draws_has_no_interval(make_trace: MakeTrace) -> None:
    reference = run(make_trace, 5, draws=20)
    short = compare({"a": run(make_trace, draws=1)}, reference, resamples=20)
    assert "a: its distances to the reference are of 4 draws of each" in " ".join(short.notes)
    frame = short.to_frame()
    assert np.isfinite(frame.loc["a", "mmd"])
    assert np.isnan(frame.loc["a", "mmd.low"])
    assert "nan" not in short.to_html()
    whole = compare({"a": run(make_trace, draws=20)}, reference, resamples=20).to_frame()
    assert whole.loc["a", "mmd.low"] < whole.loc["a", "mmd.high"]


def test_the_reference_has_no_distance_to_itself(make_trace: MakeTrace, tmp_path: Path) -> None:
    first = run(make_trace, draws=20)
    found = compare({"a": first}, reference=first, resamples=0)
    assert "mmd" not in found.entries[0].values
    assert found.notes[0] == "a is the reference itself: its distance to it is left out."
    first.to_netcdf(tmp_path / "trace.nc")
    paths = compare([tmp_path / "trace.nc"], str(tmp_path / "trace.nc"), resamples=0)
    assert "trace is the reference itself" in paths.notes[0]
    either = compare([tmp_path / "trace.nc"], tmp_path, resamples=0)
    assert "trace is the reference itself" in either.notes[0]


def test_a_bare_trace_has_a_row(make_trace: MakeTrace) -> None:
    bare = xr.DataTree.from_dict({"posterior": make_trace(draws=5)["posterior"].to_dataset()})
    found = compare({"bare": bare}, resamples=0)
    assert found.entries[0].values["draws"] == 20
    assert "bare: the trace holds no predictions." in found.notes
    assert "bare: the trace holds no test labels." in found.notes
    assert "bare" in found.to_html()
    with pytest.raises(UserError, match="no runs"):
        compare({})


def test_directories_are_named_by_their_last_folder(make_trace: MakeTrace, tmp_path: Path) -> None:
    for name in ("one", "at-0.1"):
        (tmp_path / name).mkdir()
        run(make_trace, draws=5).to_netcdf(tmp_path / name / "trace.nc")
    found = compare([tmp_path / "one", tmp_path / "at-0.1"], resamples=0)
    assert [entry.name for entry in found.entries] == ["one", "at-0.1"]
    with pytest.raises(UserError, match="no trace at"):
        compare([tmp_path / "three"])


def test_labels_that_cannot_be_judged_have_no_interval(make_trace: MakeTrace) -> None:
    odd = run(make_trace, draws=20).copy(deep=True)
    odd["predictions_constant_data"]["y"][4] = 9
    (row,) = compare({"a": odd}, resamples=40).entries
    assert "accuracy" not in {**row.values, **row.intervals}
    assert row.intervals["nll"][0] < row.values["nll"] < row.intervals["nll"][1]


def test_what_some_seeds_lack_is_averaged_over_the_others() -> None:
    numbers = ({"nll": 1.0}, {"nll": 2.0, "mmd": 0.1}, {"nll": 4.0, "mmd": 0.3})
    rows = [Entry(str(k), {"method": "hmc", **one}, {}, None, ()) for k, one in enumerate(numbers)]
    for order in (rows, rows[::-1]):
        found = over_seeds(order)
        assert found.values["mmd"] == pytest.approx(0.2)
        assert found.values["nll"] == pytest.approx(7 / 3)
        assert found.intervals["mmd"][1] - 0.2 == pytest.approx(12.7062 * 0.1, rel=1e-4)
    alone = over_seeds(rows[:2])
    assert alone.values["mmd"] == 0.1
    assert "mmd" not in alone.intervals


def test_a_reference_that_was_judged_on_other_labels_has_no_agreement(
    make_trace: MakeTrace,
) -> None:
    reference = make_trace(seed=5, draws=20)
    first = run(make_trace, draws=20)
    found = compare({"a": first}, reference, resamples=5)
    assert "a and the reference were judged on different test splits" in " ".join(found.notes)
    assert {"agreement", "total_variation"}.isdisjoint(found.entries[0].values)
    assert "mmd" in found.entries[0].values
    same = compare({"a": first}, run(make_trace, 5, draws=20), resamples=5)
    assert "agreement" in same.entries[0].intervals
    assert "different test splits" not in " ".join(same.notes)


def test_dead_chains_are_left_out(make_trace: MakeTrace) -> None:
    whole = run(make_trace, draws=20).copy(deep=True)
    whole["predictions"]["log_predictive"][1] = -50.0
    whole["predictions"]["mean"][1] = 1 / 3
    whole.attrs["dead_chains"] = "[1]"
    kept = run(make_trace, draws=20).isel(chain=[0, 2, 3])
    kept.attrs["members"] = "[0, 0, 1]"
    found, expected = (compare({"a": one}, resamples=0).entries[0] for one in (whole, kept))
    assert found.values == expected.values
