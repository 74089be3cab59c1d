"""Stacking weights against a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from pyro_bnn.diagnostics.stacking import stacking_weights


def test_weights_maximise_the_density_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    log_p = rng.normal(size=(4, 80))

    def loss(free: np.ndarray) -> float:
        return -float(
            logsumexp(log_p + np.log(softmax(np.append(free, 0)))[:, None], axis=0).mean()
        )

    best = minimize(loss, np.zeros(3), method="BFGS")
    found = stacking_weights(log_p)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, softmax(np.append(best.x, 0)), atol=2e-3)
    value = float(logsumexp(log_p + np.log(found)[:, None], axis=0).mean())
    assert value == pytest.approx(-best.fun, abs=1e-6)


def test_impossible_methods_have_no_weight() -> None:
    log_p = np.array([[-1.0, -1.0], [-np.inf, -np.inf], [-np.inf, -0.1]])
    found = stacking_weights(log_p)
    assert found[1] == 0
    assert found[0] > 0
    assert stacking_weights(np.full((2, 3), -np.inf)).tolist() == [0.5, 0.5]
