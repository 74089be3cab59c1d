"""Scores on corrupted inputs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import accuracy_score, log_loss

from pyro_bnn.diagnostics.plots.robustness import plot_robustness
from pyro_bnn.diagnostics.robustness import robustness


def test_scores_equal_sklearn(trace: xr.DataTree) -> None:
    found = robustness(trace)
    assert found is not None
    assert (found.severities, found.draws) == ((1, 2, 3, 4, 5), 20)
    group = trace["predictions_corrupted"]
    y = trace["predictions_constant_data"]["y"].to_numpy()
    for corruption in ("noise", "blur"):
        for place, severity in enumerate(found.severities):
            one = group["mean"].sel(corruption=corruption, severity=severity).to_numpy()
            density = group["log_predictive"].sel(corruption=corruption, severity=severity)
            scores = {key: v[place] for key, v in found.scores[corruption].items()}
            assert scores["accuracy"] == accuracy_score(y, one.argmax(1))
            assert scores["nll"] == pytest.approx(-float(density.mean()), abs=1e-12)
            brier = np.mean(np.sum((one - np.eye(3)[y]) ** 2, axis=1))
            assert scores["brier"] == pytest.approx(brier, abs=1e-12)
            assert np.isfinite(log_loss(y, one))
    nll = [found.scores[name]["nll"].mean() for name in ("noise", "blur")]
    assert found.average["nll"] == pytest.approx(np.mean(nll))


def test_binary_and_continuous_predictions_are_graded_too(any_trace: xr.DataTree) -> None:
    found = robustness(any_trace)
    assert found is not None
    kind = any_trace["predictions"].attrs["likelihood"]
    assert ("rmse" if kind == "continuous" else "accuracy") in found.average


def test_nothing_to_read_gives_none(trace: xr.DataTree) -> None:
    assert robustness(xr.DataTree()) is None
    empty = trace.copy()
    empty["predictions_corrupted"] = xr.DataTree(xr.Dataset({"mean": ("test", np.ones(3))}))
    assert robustness(empty) is None


def test_picture_has_a_line_a_corruption() -> None:
    scores = {name: np.linspace(0.9, 0.4, 5) for name in "abcdefg"}
    (axes,) = plot_robustness(range(1, 6), scores, "accuracy", 0.95).axes
    assert len(axes.lines) == 7
    assert all(line.get_ydata()[0] == 0.95 for line in axes.lines)
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 7


def test_predictions_of_nan_at_one_severity_leave_the_others(trace: xr.DataTree) -> None:
    broken = trace.copy(deep=True)
    broken["predictions_corrupted"]["mean"].loc[{"corruption": "blur", "severity": 5}] = np.nan
    found, whole = robustness(broken), robustness(trace)
    assert found is not None
    assert whole is not None
    for name in ("noise", "blur"):
        expected = whole.scores[name]["accuracy"].copy()
        expected[4] = np.nan if name == "blur" else expected[4]
        np.testing.assert_array_equal(found.scores[name]["accuracy"], expected)
    assert found.average["nll"] == whole.average["nll"]
    assert np.isnan(found.average["accuracy"])
