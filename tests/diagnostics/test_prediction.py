"""Posterior predictive averages against the whole arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import entropy, norm
from sklearn.metrics import log_loss

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.prediction import point_prediction, posterior_prediction
from pyro_bnn.trace import open_trace


def flat(trace: xr.DataTree, name: str) -> np.ndarray:
    values = trace["predictions"][name].to_numpy()
    return values.reshape(-1, *values.shape[2:])


def test_classes_are_averaged_over_draws(trace: xr.DataTree) -> None:
    result = posterior_prediction(trace)
    p = flat(trace, "mean")
    y = trace["predictions_constant_data"]["y"].to_numpy()
    np.testing.assert_allclose(result.mean, p.mean(axis=0), rtol=1e-12)
    scores = result.scores()
    assert scores["nll"] == pytest.approx(log_loss(y, p.mean(axis=0)), rel=1e-9)
    assert scores["accuracy"] == np.mean(p.mean(axis=0).argmax(axis=1) == y)
    assert result.draws == len(p)
    information = metrics.entropy(p.mean(axis=0)) - metrics.entropy(p).mean(axis=0)
    np.testing.assert_allclose(result.spread, information, rtol=1e-9)


def test_binary_probabilities_become_two_classes(make_trace) -> None:
    trace = make_trace("bernoulli")
    result = posterior_prediction(trace)
    p = flat(trace, "mean").mean(axis=0)
    y = trace["predictions_constant_data"]["y"].to_numpy()
    np.testing.assert_allclose(result.mean, np.stack([1 - p, p], axis=1), rtol=1e-12)
    assert result.scores()["nll"] == pytest.approx(log_loss(y, p), rel=1e-9)
    assert point_prediction(trace).mean.shape == (40, 2)


def test_continuous_scores(regression: xr.DataTree) -> None:
    result = posterior_prediction(regression)
    scores = result.scores()
    log_p = flat(regression, "log_predictive")
    y = regression["predictions_constant_data"]["y"].to_numpy()
    mean = flat(regression, "mean")
    assert scores["rmse"] == pytest.approx(metrics.rmse(mean.mean(axis=0), y), rel=1e-12)
    expected = -np.mean(logsumexp(log_p, axis=0) - np.log(len(log_p)))
    assert scores["nll"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(result.spread, mean.std(axis=0), rtol=1e-9)
    pit = norm.cdf(y, mean, 0.5).mean(axis=0)
    assert scores["coverage90"] == np.mean((pit >= 0.05) & (pit <= 0.95))
    assert "accuracy" not in scores


def test_calibrated_predictions_cover() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=4_000)
    y = centre + rng.normal(size=4_000)
    draws = centre + np.zeros((2, 5, 1))
    group = xr.Dataset(
        {"cdf": (("chain", "draw", "test"), norm.cdf(y, draws))},
        attrs={"likelihood": "continuous"},
    )
    scores = posterior_prediction(xr.DataTree.from_dict({"predictions": group})).scores()
    assert scores["coverage50"] == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 4_000))
    assert scores["coverage90"] == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 4_000))
    assert scores["pit_distance"] < 2 / np.sqrt(4_000)


def test_blocks_give_the_same_averages(
    any_trace: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = posterior_prediction(any_trace)
    any_trace.to_netcdf(tmp_path / "trace.nc")
    lazy = open_trace(tmp_path / "trace.nc", chunks={"draw": 7})
    parts = posterior_prediction(lazy)
    lazy.close()
    for name in ("log_predictive", "mean", "pit", "spread"):
        ours, theirs = getattr(parts, name), getattr(whole, name)
        if theirs is None:
            assert ours is None
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_spread_survives_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    mean = 1e6 + rng.normal(size=(4, 50, 3))
    group = xr.Dataset({"mean": (("chain", "draw", "test"), mean)})
    result = posterior_prediction(xr.DataTree.from_dict({"predictions": group}))
    np.testing.assert_allclose(result.spread, mean.reshape(-1, 3).std(axis=0), rtol=1e-7)


def test_draws_with_nan_are_left_out_and_counted(trace: xr.DataTree) -> None:
    broken = trace.copy(deep=True)
    broken["predictions"]["mean"][0, 3, 5, 0] = np.nan
    broken["predictions"]["log_predictive"][2, 4, 1] = np.nan
    result = posterior_prediction(broken)
    keep = np.ones((4, 100), dtype=bool)
    keep[0, 3] = keep[2, 4] = False
    expected = trace["predictions"]["mean"].to_numpy()[keep].mean(axis=0)
    np.testing.assert_allclose(result.mean, expected, rtol=1e-12)
    assert (result.left_out, result.draws) == (2, 398)


def test_an_impossible_observation_counts_as_infinite_loss() -> None:
    log_p = np.zeros((2, 4, 3))
    log_p[..., 1] = -np.inf
    group = xr.Dataset({"log_predictive": (("chain", "draw", "test"), log_p)})
    result = posterior_prediction(xr.DataTree.from_dict({"predictions": group}))
    assert result.scores()["nll"] == np.inf
    assert result.left_out == 0


def test_missing_groups(trace: xr.DataTree) -> None:
    assert posterior_prediction(xr.DataTree()) is None
    assert point_prediction(xr.DataTree()) is None
    bare = xr.DataTree.from_dict({"predictions": trace["predictions"].to_dataset()})
    assert set(posterior_prediction(bare).scores()) == {"nll", "mutual_information"}


def test_point_estimate_is_scored_alike(trace: xr.DataTree) -> None:
    result = point_prediction(trace)
    y = trace["predictions_constant_data"]["y"].to_numpy()
    p = trace["point_estimate"]["mean"].to_numpy()
    assert result.scores()["nll"] == pytest.approx(log_loss(y, p), rel=1e-9)
    assert result.scores()["ece"] == metrics.expected_calibration_error(p, y)


def test_uncertainty_splits_into_noise_and_disagreement(trace, regression) -> None:
    found = posterior_prediction(trace)
    mean = trace["predictions"]["mean"].to_numpy().reshape(-1, 40, 3)
    np.testing.assert_allclose(found.noise, entropy(mean, axis=2).mean(axis=0))
    total = entropy(mean.mean(axis=0), axis=1)
    np.testing.assert_allclose(found.noise + found.spread, total, atol=1e-12)
    numbers = posterior_prediction(regression)
    np.testing.assert_allclose(numbers.noise, 0.5)


def test_crps_is_that_of_the_mixture(regression) -> None:
    found = posterior_prediction(regression)
    mean = regression["predictions"]["mean"].to_numpy()[:, 1::2].reshape(-1, 40)
    y = regression["predictions_constant_data"]["y"].to_numpy()
    expected = metrics.crps_of_normals(mean, np.full_like(mean, 0.5), y)
    np.testing.assert_allclose(found.crps, expected, rtol=1e-10)
    assert found.scores()["crps"] == pytest.approx(np.mean(expected))
    lacking = regression.copy()
    lacking["predictions"] = lacking["predictions"].to_dataset().drop_vars("sd")
    assert posterior_prediction(lacking).crps is None


@pytest.mark.parametrize("label", [3, -1, 0.5])
def test_labels_that_are_no_classes_are_said_and_not_judged(trace, label: float) -> None:
    odd = trace.copy(deep=True)
    odd["predictions_constant_data"]["y"] = odd["predictions_constant_data"]["y"].astype(float)
    odd["predictions_constant_data"]["y"][4] = label
    found = posterior_prediction(odd)
    assert "but the predictions have 3 classes" in found.problem
    assert {"accuracy", "brier", "ece"}.isdisjoint(found.scores())
    assert found.scores()["nll"] > 0
    assert posterior_prediction(trace).problem == ""


def test_a_point_estimate_of_nan_is_said_and_not_judged(trace) -> None:
    broken = trace.copy(deep=True)
    broken["point_estimate"]["mean"].values[0] = np.nan
    found = point_prediction(broken)
    assert found.problem == "The predictions hold NaN."
    assert set(found.scores()) == {"nll"}


def test_classes_without_labels_are_said(make_trace) -> None:
    trace = make_trace(classes=4, draws=10)
    y = trace["predictions_constant_data"]["y"]
    assert posterior_prediction(trace).remark == ""
    y[:] = np.minimum(y.to_numpy(), 1)
    found = posterior_prediction(trace)
    assert "4 classes, of which the labels hold 2" in found.remark
    assert "accuracy" in found.scores()


@pytest.mark.parametrize(("chains", "draws"), [(3, 100), (260, 1)])
def test_crps_is_of_two_hundred_draws_of_all_chains(make_trace, monkeypatch, chains, draws) -> None:
    trace = make_trace("continuous", chains=chains, draws=draws)
    numbers = np.arange(float(chains * draws)).reshape(chains, draws, 1)
    trace["predictions"]["mean"] = trace["predictions"]["mean"].copy(
        data=np.broadcast_to(numbers, trace["predictions"]["mean"].shape)
    )
    seen = []
    score = metrics.crps_of_normals
    monkeypatch.setattr(
        metrics, "crps_of_normals", lambda *given: seen.append(given[0]) or score(*given)
    )
    posterior_prediction(trace)
    assert len(seen[0]) == 200
    gaps = np.diff(seen[0][:, 0], prepend=-1, append=chains * draws)
    assert gaps.min() >= 1
    assert gaps.max() <= 2


def test_draws_of_infinite_means_are_left_out(regression) -> None:
    broken = regression.copy(deep=True)
    broken["predictions"]["mean"][0, 0, 5] = np.inf  # the rate of a count that overflowed
    found = posterior_prediction(broken)
    assert (found.left_out, found.draws) == (1, 399)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.spread).all()


def test_a_law_without_a_mean_is_scored_by_its_density(regression) -> None:
    cauchy = regression.copy(deep=True)
    for name in ("mean", "sd"):
        cauchy["predictions"] = cauchy["predictions"].to_dataset().drop_vars(name)
    expected = posterior_prediction(cauchy).scores()
    cauchy["predictions"]["mean"] = regression["predictions"]["mean"] * np.nan
    found = posterior_prediction(cauchy)
    assert found.scores() == expected
    assert (found.left_out, found.draws, found.mean, found.spread) == (0, 400, None, None)
    # A draw that is no network any more has no density either.
    cauchy["predictions"]["log_predictive"][1, 7] = np.nan
    assert (posterior_prediction(cauchy).left_out, posterior_prediction(cauchy).draws) == (1, 399)


def test_crps_of_many_inputs_is_of_fewer_draws(make_trace, monkeypatch) -> None:
    trace = make_trace("continuous", chains=2, draws=60, tests=40)
    whole = posterior_prediction(trace).crps.mean()
    monkeypatch.setattr("pyro_bnn.diagnostics.prediction._CRPS_TERMS", 40 * 50**2)
    seen = []
    score = metrics.crps_of_normals
    monkeypatch.setattr(
        metrics, "crps_of_normals", lambda *given: seen.append(len(given[0])) or score(*given)
    )
    assert posterior_prediction(trace).crps.mean() == pytest.approx(whole, rel=0.05)
    assert seen == [50]
