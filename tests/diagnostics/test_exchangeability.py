"""The exchangeability test: the study's numbers, its level, and samplers that pass and fail."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from pyro_bnn.diagnostics.exchangeability import (
    exchangeability,
    hidden_spaces,
    thinned,
    uniformity,
)
from pyro_bnn.diagnostics.plots.exchangeability import plot_exchangeability

UNITS = 6


def trace_of(weights: NDArray[np.floating]) -> xr.DataTree:
    """Make a trace of one hidden space from incoming weights ``(chain, draw, unit, input)``."""
    posterior = xr.Dataset(
        {
            "0.weight": (("chain", "draw", "h0", "x0"), weights),
            "2.weight": (("chain", "draw", "y0", "h0"), weights[..., 0][:, :, None]),
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior})


def modes(rng: np.random.Generator, chains: int, draws: int) -> NDArray[np.float64]:
    """Draw chains that each stay near one network."""
    centre = rng.normal(size=(chains, 1, UNITS, 3))
    return centre + 0.1 * rng.normal(size=(chains, draws, UNITS, 3))


def shuffled(rng: np.random.Generator, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    order = rng.permuted(np.broadcast_to(np.arange(UNITS), weights.shape[:3]), axis=-1)
    return np.take_along_axis(weights, order[..., None], axis=2)


def test_the_published_counts_give_the_published_statistics() -> None:
    # Section 7 of the study's poster: deep ensembles, and three HMC chains.
    ensembles = [45, 49, 46, 43, 45, 54, 47, 56, 38, 47, 50, 44, 41, 44, 51, 53]
    hmc = [33, 144, 0, 0, 64, 30, 6, 34, 8, 44, 213, 112, 40, 7, 0, 18]
    rng = np.random.default_rng(0)
    for counts, chi2, passes in ((ensembles, 7.5, True), (hmc, 1157, False)):
        statistic, p_value, p_asymptotic = uniformity(np.array(counts), 9_999, rng)
        expected = chisquare(counts)
        assert statistic == pytest.approx(expected.statistic)
        assert statistic == pytest.approx(chi2, rel=0.01)
        assert p_asymptotic == pytest.approx(expected.pvalue, abs=1e-12)
        assert p_value == pytest.approx(expected.pvalue, abs=0.03)
        assert (p_value > 0.5) == passes
    assert p_value == 1e-4


def test_p_values_are_uniform_on_shuffled_draws() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(300):
        found = exchangeability(trace_of(shuffled(rng, modes(rng, 4, 40))), 499)
        p_values.append(found["h0"].p_value)
    # Counts are whole numbers, so p-values have ties, and are a little too large if anything.
    assert kstest(p_values, "uniform").pvalue > 1e-4
    rejected = np.mean(np.array(p_values) <= 0.05)
    assert rejected < 0.05 + 5 * np.sqrt(0.05 * 0.95 / 300)


def test_chains_that_never_swap_units_are_rejected() -> None:
    rng = np.random.default_rng(2)
    found = exchangeability(trace_of(modes(rng, 4, 200)))["h0"]
    assert found.p_value < 1e-3
    assert found.chains == 4
    # A mode may have two units nearly tied; most chains hold on to one unit.
    assert found.stuck >= 2


def test_autocorrelation_of_the_values_is_accounted_for() -> None:
    # Each network is held for ten draws: as they stand, counts are ten times too many.
    rng = np.random.default_rng(3)
    p_values, naive = [], []
    for _ in range(60):
        weights = rng.normal(size=(4, 40, UNITS, 3)).repeat(10, axis=1)
        found = exchangeability(trace_of(weights), 499)["h0"]
        assert found.draws < 4 * 100
        p_values.append(found.p_value)
        counts = np.bincount(weights.max(-1).argmax(-1).ravel(), minlength=UNITS)
        naive.append(chisquare(counts).pvalue)
    assert np.mean(np.array(naive) < 0.05) > 0.5
    assert np.mean(np.array(p_values) < 0.05) < 0.05 + 5 * np.sqrt(0.05 * 0.95 / 60)


def test_an_ensemble_of_single_draws_passes() -> None:
    rng = np.random.default_rng(4)
    found = exchangeability(trace_of(rng.normal(size=(600, 1, UNITS, 3))))["h0"]
    assert found.draws == 600
    assert found.p_value > 1e-3
    assert found.chains == 0


def test_spaces_are_those_with_a_stored_permutation(make_trace) -> None:
    trace = make_trace()
    assert hidden_spaces(trace) == {"h0": "0.weight"}
    trace["symmetry"] = trace["symmetry"].to_dataset().drop_vars("h0")
    assert hidden_spaces(trace) == {}
    del trace["symmetry"]
    assert hidden_spaces(trace) == {"h0": "0.weight"}
    assert exchangeability(xr.DataTree()) == {}


def test_broken_and_constant_chains_are_left_to_the_others() -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(3, 50, UNITS, 3))
    weights[0, 7] = np.nan
    weights[1] = weights[1, :1]
    found = exchangeability(trace_of(weights))["h0"]
    assert 49 < found.draws <= 49 + 1 + 50
    nothing = exchangeability(trace_of(np.full((2, 5, UNITS, 3), np.nan)))
    assert nothing == {}


def test_picture_has_a_bar_a_unit() -> None:
    picture = plot_exchangeability({"h0": np.arange(8), "h1": np.arange(5)})
    assert [len(axes.patches) for axes in picture.axes] == [8 + 1, 5 + 1]


def test_a_broken_draw_does_not_undo_the_thinning_of_its_chain() -> None:
    rng = np.random.default_rng(6)
    value = rng.normal(size=(3, 40)).repeat(10, axis=1)
    index = np.zeros(value.shape, dtype=np.int64)
    whole = [len(chain) for chain in thinned(index, value)]
    value[1, 123] = np.nan
    broken = [len(chain) for chain in thinned(index, value)]
    assert broken[0] == whole[0]
    assert broken[2] == whole[2]
    assert broken[1] == pytest.approx(whole[1], abs=5)
