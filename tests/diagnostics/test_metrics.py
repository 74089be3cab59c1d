"""Scores against scikit-learn, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy
from scipy.stats import kstest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, root_mean_squared_error

from pyro_bnn.diagnostics import metrics

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
