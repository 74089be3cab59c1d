"""R-hat, ESS and MCSE against ArviZ, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.signal import lfilter

from pyro_bnn.diagnostics.rank_statistics import rank_statistics


def test_independent_draws_are_worth_their_number() -> None:
    values = np.random.default_rng(0).normal(size=(200, 4, 250))
    rhat, bulk, tail, _ = rank_statistics(values)
    assert abs(np.median(rhat) - 1) < 0.005
    assert abs(np.median(bulk) / 1000 - 1) < 0.1
    assert abs(np.median(tail) / 1000 - 1) < 0.15


def test_autocorrelated_draws_are_worth_less() -> None:
    # An AR(1) chain of coefficient rho has an integrated autocorrelation of (1 + rho) / (1 - rho).
    noise = np.random.default_rng(1).normal(size=(200, 4, 2000))
    bulk = rank_statistics(lfilter([1.0], [1.0, -0.5], noise, axis=-1))[1]
    assert abs(np.median(bulk) / (8000 / 3) - 1) < 0.1


def test_one_chain_has_ess_but_no_rhat() -> None:
    values = np.random.default_rng(0).normal(size=(5, 1, 80))
    rhat, bulk, tail, _ = rank_statistics(values)
    assert np.isnan(rhat).all()
    np.testing.assert_allclose(bulk, array_stats.ess(values, method="bulk"), rtol=1e-9)
    assert np.isfinite(tail).all()


def test_three_draws_are_too_few() -> None:
    assert np.isnan(rank_statistics(np.random.default_rng(0).normal(size=(5, 4, 3)))).all()


def test_chains_that_never_move_have_infinite_rhat() -> None:
    values = np.broadcast_to(np.arange(4.0)[:, None], (1, 4, 20)).copy()
    assert rank_statistics(values)[0, 0] == np.inf


def test_monotone_maps_change_nothing_in_the_bulk() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4, 60))
    np.testing.assert_array_equal(
        rank_statistics(values)[1], rank_statistics(np.exp(3 * values) + 7)[1]
    )


def test_monte_carlo_error_is_arviz_and_the_scatter_of_means() -> None:
    noise = np.random.default_rng(2).normal(size=(300, 4, 1000))
    values = 3 * lfilter([1.0], [1.0, -0.5], noise, axis=-1) + 7
    mcse = rank_statistics(values)[3]
    np.testing.assert_allclose(mcse, array_stats.mcse(values, method="mean"), rtol=1e-9)
    # Three hundred means of independent runs scatter by the error that each run states.
    scatter = values.mean(axis=(1, 2)).std(ddof=1)
    assert abs(scatter / np.median(mcse) - 1) < 5 / np.sqrt(2 * 300)


@pytest.mark.parametrize("chains", [1, 2, 5])
@pytest.mark.parametrize("draws", [4, 5, 7, 8, 9, 40, 151])
@pytest.mark.parametrize("kind", ["moving", "with repeats", "stuck apart", "antithetic"])
def test_every_number_is_that_of_arviz(chains: int, draws: int, kind: str) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_cauchy(size=(12, chains, draws))
    if kind == "with repeats":  # as rejected proposals leave them
        values = np.take(values, np.sort(rng.integers(draws, size=draws)), axis=-1)
    elif kind == "stuck apart":
        values[:, 0] = 50.0
    elif kind == "antithetic":
        values = np.abs(values) * (-1.0) ** np.arange(draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = [
            array_stats.rhat(values) if chains > 1 else np.full(12, np.nan),
            array_stats.ess(values, method="bulk"),
            array_stats.ess(values, method="tail", prob=(0.05, 0.95)),
            array_stats.mcse(values, method="mean"),
        ]
    np.testing.assert_allclose(rank_statistics(values), expected, rtol=1e-12)
