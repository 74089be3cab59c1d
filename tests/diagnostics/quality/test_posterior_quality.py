"""The distance of a trace to a reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_bnn.diagnostics.draws import Draws, chosen, effective_draws
from pyro_bnn.diagnostics.quality import Distances, mmd, posterior_quality
from pyro_bnn.errors import UserError

MakeTrace = Callable[..., xr.DataTree]


def independent(
    make_trace: MakeTrace, seed: int, shift: float = 0.0, chains: int = 60
) -> xr.DataTree:
    """Make a trace of independent members, each one draw."""
    trace = make_trace(chains=chains, draws=1, seed=0).copy(deep=True)
    rng = np.random.default_rng(seed)
    for name in ("posterior", "canonical_posterior"):
        for site in trace[name].data_vars:
            noise = rng.normal(size=trace[name][site].shape)
            trace[name][site].values = noise + shift * (name == "posterior")
    return trace


def test_layers_spaces_and_the_whole(make_trace: MakeTrace) -> None:
    found = posterior_quality(independent(make_trace, 1, 0.5), independent(make_trace, 2))
    assert [(w.space, w.layer) for w in found.weights] == [
        (space, layer) for space in ("weight", "canonical", "null") for layer in ("0", "2", "all")
    ]
    assert found.samples == 60
    raw, canonical, null = (found.whole(space) for space in ("weight", "canonical", "null"))
    assert raw is not None
    assert canonical is not None
    assert null is not None
    assert raw.p_value < 0.01 < canonical.p_value
    # Both traces have the same draws of the prior; these are split, not compared with themselves.
    assert null.interval[0] < 0 < null.interval[1]
    assert null.p_value > 0.01
    assert raw.interval[0] < raw.value < raw.interval[1]
    wasserstein = {(w.space, w.layer): w.wasserstein for w in found.weights}
    assert wasserstein["weight", "all"] > wasserstein["canonical", "all"]


def test_the_control_tells_an_alignment_that_makes_a_difference(make_trace: MakeTrace) -> None:
    first, second = make_trace(seed=0), make_trace(seed=0)
    for site, values in first["canonical_prior"].data_vars.items():
        first["canonical_prior"][site].values = values + 1.0
    found = posterior_quality(first, second, resamples=0, by_layer=False)
    null, canonical = found.whole("null"), found.whole("canonical")
    assert null is not None
    assert canonical is not None
    assert null.p_value < 0.01
    assert null.value > 10 * abs(canonical.value)
    lacking = first.copy()
    del lacking["canonical_prior"]
    assert posterior_quality(lacking, second, resamples=0, permutations=0).whole("null") is None


def test_the_whole_is_the_mmd_of_all_weights_at_once(make_trace: MakeTrace) -> None:
    first, second = independent(make_trace, 1, 0.5), independent(make_trace, 2)
    flat = [
        torch.from_numpy(
            np.concatenate(
                [v.to_numpy().reshape(60, -1) for v in t["posterior"].data_vars.values()], axis=1
            )
        )
        for t in (first, second)
    ]
    found = posterior_quality(first, second, permutations=0, resamples=0).whole("weight")
    assert found is not None
    direct = mmd(Distances.of(*flat), permutations=0, resamples=0)
    assert found.values == pytest.approx(direct.values, abs=1e-12)


def test_permuting_units_changes_no_function_and_no_canonical_number(
    make_trace: MakeTrace,
) -> None:
    trace, reference = make_trace(seed=0), make_trace(seed=1)
    moved = trace.copy(deep=True)
    order = np.random.default_rng(0).permutation(4)
    posterior = moved["posterior"].to_dataset().isel(h0=order)
    moved["posterior"] = xr.DataTree(posterior)
    before, after = (posterior_quality(t, reference, 100, 50, 20) for t in (trace, moved))
    assert before.agreement == after.agreement
    assert before.total_variation == after.total_variation
    assert before.whole("canonical") == after.whole("canonical")
    assert before.whole("weight") != after.whole("weight")


def test_both_are_thinned_to_the_effective_size_of_the_smaller(make_trace: MakeTrace) -> None:
    trace = make_trace(chains=4, draws=100)
    size = effective_draws(trace["posterior"].to_dataset())
    assert 4 * 100 / 6 < size < 4 * 100 / 1.5  # rho = 0.5: a third of the draws
    assert posterior_quality(trace, independent(make_trace, 1), 500, 0, 0).samples == 60
    assert posterior_quality(trace, trace, 500, 0, 0).samples == size


def test_broken_draws_are_left_out(make_trace: MakeTrace) -> None:
    trace, reference = independent(make_trace, 1), independent(make_trace, 2)
    trace["posterior"]["0.bias"][3, 0, 1] = np.nan
    found = posterior_quality(trace, reference, permutations=0, resamples=0)
    assert found.samples == 59
    raw = found.whole("weight")
    assert raw is not None
    assert np.isfinite(raw.value)


def test_other_models_are_refused_by_what_differs(make_trace: MakeTrace) -> None:
    trace = make_trace()
    with pytest.raises(UserError, match=r"0\.weight has shape \(4, 5\) in one and \(5, 5\)"):
        posterior_quality(trace, make_trace(hidden=5))
    lacking = trace.copy()
    lacking["posterior"] = xr.DataTree(trace["posterior"].to_dataset().drop_vars("2.bias"))
    with pytest.raises(UserError, match=r"only one of them has 2\.bias"):
        posterior_quality(trace, lacking)
    with pytest.raises(UserError, match="the reference has no group 'posterior'"):
        posterior_quality(trace, xr.DataTree())


def test_chosen_draws_come_in_blocks() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 4, 6))
    array = xr.DataArray(values, dims=("chain", "draw", "a", "b"))
    picks = Draws(np.array([0, 2, 2]), np.array([4, 0, 3]))
    whole = np.concatenate(list(chosen(array, picks, 8 * 3 * 6)), axis=1)
    np.testing.assert_array_equal(whole, values[[0, 2, 2], [4, 0, 3]].reshape(3, -1))
    assert len(list(chosen(array, picks, 8 * 3 * 6))) == 4
