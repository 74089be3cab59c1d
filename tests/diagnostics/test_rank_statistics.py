"""R-hat and ESS against ArviZ, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.signal import lfilter

from pyro_bnn.diagnostics.rank_statistics import rank_statistics


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, -0.9])
@pytest.mark.parametrize("decimals", [None, 0], ids=["distinct", "tied"])
@pytest.mark.parametrize(
    ("chains", "draws"), [(4, 100), (2, 37), (3, 4), (2, 5), (2, 6), (2, 7), (2, 11), (16, 151)]
)
def test_equals_arviz(chains: int, draws: int, decimals: int | None, rho: float) -> None:
    noise = np.random.default_rng(draws).normal(size=(30, chains, draws))
    values = lfilter([1.0], [1.0, -rho], noise, axis=-1)
    if decimals is not None:
        values = values.round(decimals)
    values = values[np.ptp(values, axis=(1, 2)) > 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = [
            array_stats.rhat(values),
            array_stats.ess(values, method="bulk"),
            array_stats.ess(values, method="tail", prob=(0.05, 0.95)),
        ]
    np.testing.assert_allclose(rank_statistics(values), expected, rtol=1e-9)


def test_one_chain_has_ess_but_no_rhat() -> None:
    values = np.random.default_rng(0).normal(size=(5, 1, 80))
    rhat, bulk, tail = rank_statistics(values)
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
