"""Pareto k of importance weights, where the tail is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import genpareto, norm

from pyro_bnn.diagnostics.importance import importance

DRAWS = 4_000


def stats(lp: np.ndarray, log_q: np.ndarray) -> xr.DataTree:
    group = {"lp": (("chain", "draw"), lp), "log_q": (("chain", "draw"), log_q)}
    return xr.DataTree.from_dict({"sample_stats": xr.Dataset(group)})


@pytest.mark.parametrize("k", [0.3, 0.9])
def test_the_tail_of_pareto_weights_is_found(k: float) -> None:
    rng = np.random.default_rng(0)
    weights = genpareto.rvs(k, size=(20, DRAWS), random_state=rng)
    found = importance(stats(np.log(weights), np.zeros((20, DRAWS))))
    assert found is not None
    tail = 3 * np.sqrt(DRAWS)
    # The asymptotic deviation of k is (1 + k) / sqrt(tail) (Hosking and Wallis 1987).
    error = (1 + k) / np.sqrt(tail * 20)
    # ArviZ shrinks k to one half with the weight of ten draws.
    shrunk = (tail * k + 10 * 0.5) / (tail + 10)
    assert abs(found.pareto_k.mean() - shrunk) < 5 * error
    assert (found.pareto_k.mean() > found.limit) == (k > 0.7)


def test_a_perfect_guide_has_constant_weights_and_a_narrow_one_fails() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (scale * rng.normal(size=(1, DRAWS)) for scale in (1.2, 0.2))
    lp = np.concatenate([norm.logpdf(wide), norm.logpdf(narrow)]) + 17.0
    log_q = np.concatenate([norm.logpdf(wide, scale=1.2), norm.logpdf(narrow, scale=0.2)])
    found = importance(stats(lp, log_q))
    assert found is not None
    # E[w]^2 / E[w^2] of N(0, 1) against N(0, 1.44) is sqrt(2 / 1.44 - 1 / 1.44^2).
    assert found.effective[0] == pytest.approx(np.sqrt(2 / 1.44 - 1 / 1.44**2), abs=0.02)
    assert found.pareto_k[0] < found.limit < found.pareto_k[1]


def test_weights_without_a_tail_are_not_smoothed() -> None:
    # A few values, as of draws that are nearly all the same: the largest weight is the tail.
    still = np.where(np.arange(200) < 150, 2.0, 0.0)
    moving = np.random.default_rng(0).normal(size=200)
    lp = np.stack([still, moving])
    found = importance(stats(lp, np.zeros_like(lp)))
    assert found is not None
    weights = np.exp(still)
    assert found.effective[0] == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / 200)
    assert np.isinf(found.pareto_k).tolist() == [True, False]
    alone = importance(stats(moving[None], np.zeros((1, 200))))
    assert alone is not None
    assert found.pareto_k[1] == alone.pareto_k[0]
    assert found.effective[1] == alone.effective[0]


def test_what_has_no_weights(trace: xr.DataTree) -> None:
    assert importance(xr.DataTree()) is None
    few = np.zeros((2, 10))
    assert importance(stats(few, few)) is None
    rng = np.random.default_rng(0)
    lp = rng.normal(size=(2, 30))
    lp[1, 3] = np.nan
    found = importance(stats(lp, np.zeros((2, 30))))
    assert found is not None
    assert np.isnan(found.pareto_k).tolist() == [False, True]
