"""Scores against scikit-learn, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from scipy.stats import kstest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, root_mean_squared_error

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.brier import brier_parts
from pyro_bnn.diagnostics.selective import selective_curve
from pyro_bnn.diagnostics.temperature import temperature_scaling, tempered

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(4, 0.5), size=500)
Y = np.array([RNG.choice(4, p=row) for row in 0.7 * P + 0.3 / 4])


def test_accuracy_equals_sklearn() -> None:
    assert metrics.accuracy(P, Y) == accuracy_score(Y, P.argmax(axis=1))


def test_brier_of_two_classes_is_twice_sklearns() -> None:
    p = RNG.random(200)
    y = RNG.integers(2, size=200)
    ours = metrics.brier(np.stack([1 - p, p], axis=1), y)
    assert ours == pytest.approx(2 * brier_score_loss(y, p), rel=1e-12)


def test_brier_of_many_classes_equals_a_loop() -> None:
    loop = np.mean(
        [sum((p - (k == y)) ** 2 for k, p in enumerate(row)) for row, y in zip(P, Y, strict=True)]
    )
    assert metrics.brier(P, Y) == pytest.approx(loop, rel=1e-12)


def test_reliability_equals_sklearn() -> None:
    table = metrics.reliability(P, Y, bins=15)
    right = P.argmax(axis=1) == Y
    share, confidence = calibration_curve(right, P.max(axis=1), n_bins=15)
    np.testing.assert_allclose(table.accuracy, share)
    np.testing.assert_allclose(table.confidence, confidence)
    assert table.count.sum() == len(Y)


def test_ece_equals_a_loop() -> None:
    confidence, right = P.max(axis=1), P.argmax(axis=1) == Y
    total = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert metrics.expected_calibration_error(P, Y) == pytest.approx(total, rel=1e-12)


def test_certain_and_right_is_perfect() -> None:
    p = np.eye(3)
    y = np.arange(3)
    assert metrics.brier(p, y) == metrics.expected_calibration_error(p, y) == 0
    assert metrics.entropy(p).tolist() == [0, 0, 0]


def test_entropy_equals_scipy() -> None:
    np.testing.assert_allclose(metrics.entropy(P), scipy_entropy(P, axis=1))


def test_rmse_equals_sklearn() -> None:
    a, b = RNG.normal(size=(2, 50))
    assert metrics.rmse(a, b) == pytest.approx(root_mean_squared_error(a, b), rel=1e-12)


def test_uniform_distance_equals_scipy() -> None:
    pit = RNG.beta(2, 2, size=100)
    assert metrics.uniform_distance(pit) == pytest.approx(kstest(pit, "uniform").statistic)


def test_coverage_counts_central_intervals() -> None:
    pit = np.array([0.01, 0.04, 0.06, 0.5, 0.94, 0.96])
    assert metrics.coverage(pit, 0.9) == 0.5
    assert metrics.coverage(pit, 1.0) == 1.0


def test_adaptive_calibration_error_equals_a_loop() -> None:
    confidence, right = P.max(axis=1), P.argmax(axis=1) == Y
    order = sorted(range(len(Y)), key=lambda i: confidence[i])
    total, start = 0.0, 0
    for k in range(15):
        size = 34 if k < 5 else 33  # 500 inputs in 15 bins
        rows = order[start : start + size]
        start += size
        total += abs(sum(confidence[i] - right[i] for i in rows)) / 500
    assert start == 500
    assert metrics.adaptive_calibration_error(P, Y) == pytest.approx(total, rel=1e-10)
    assert metrics.adaptive_calibration_error(P[:3], Y[:3]) == pytest.approx(
        np.mean(np.abs(confidence[:3] - right[:3]))
    )


def test_crps_equals_the_integral_over_thresholds() -> None:
    mean, sd = RNG.normal(size=(4, 3)), RNG.uniform(0.2, 2.0, size=(4, 3))
    y = np.array([-1.0, 0.3, 4.0])
    grid = np.linspace(-30, 30, 400_001)
    for i, observed in enumerate(y):
        cdf = norm.cdf(grid[:, None], mean[:, i], sd[:, i]).mean(axis=1)
        integral = trapezoid((cdf - (grid >= observed)) ** 2, grid)
        assert metrics.crps_of_normals(mean, sd, y)[i] == pytest.approx(integral, abs=2e-4)


def test_crps_of_one_normal_is_the_closed_form() -> None:
    # Gneiting and Raftery (2007): sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)).
    z = np.array([-2.0, 0.0, 0.7])
    expected = 3 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    found = metrics.crps_of_normals(np.zeros((1, 3)), np.full((1, 3), 3.0), 3 * z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_parts_of_the_brier_score_add_up() -> None:
    bins = 10
    coarse = np.tile([0.15, 0.25, 0.35, 0.25], (500, 1))
    coarse[::2] = [0.55, 0.15, 0.15, 0.15]  # each probability is the mean of its bin
    parts = brier_parts(coarse, Y, bins)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert total == pytest.approx(metrics.brier(coarse, Y), rel=1e-12)
    calibrated = np.tile(np.bincount(Y, minlength=4) / len(Y), (len(Y), 1))
    assert brier_parts(calibrated, Y).reliability == pytest.approx(0, abs=1e-12)
    assert brier_parts(calibrated, Y).resolution == pytest.approx(0, abs=1e-12)


def test_temperature_is_recovered_and_gains_out_of_sample() -> None:
    logits = 2 * RNG.normal(size=(4000, 3))
    truth = softmax(logits, axis=1)
    y = np.array([RNG.choice(3, p=row) for row in truth])
    sharp = softmax(2.5 * logits, axis=1)
    found = temperature_scaling(sharp, y)
    assert found.value == pytest.approx(2.5, rel=0.15)
    assert found.nll_before == pytest.approx(log_loss(y, sharp), rel=1e-6)
    assert found.nll_after < found.nll_before
    np.testing.assert_allclose(tempered(sharp, 2.5), truth, atol=1e-12)
    assert abs(temperature_scaling(truth, y).value - 1) < 0.1


def test_selective_curve_equals_a_loop() -> None:
    uncertainty, loss = RNG.normal(size=50), RNG.integers(2, size=50).astype(float)
    curve = selective_curve(uncertainty, loss)
    order = np.argsort(uncertainty)
    risks = [loss[order[: k + 1]].mean() for k in range(50)]
    np.testing.assert_allclose(curve.risk, risks)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 51) / 50)
    assert curve.area == pytest.approx(np.mean(risks))


def test_ties_are_answered_together() -> None:
    curve = selective_curve(np.zeros(4), np.array([1.0, 0, 0, 0]))
    assert (curve.coverage.tolist(), curve.risk.tolist(), curve.area) == ([1.0], [0.25], 0.25)
