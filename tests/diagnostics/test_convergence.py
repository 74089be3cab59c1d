"""Convergence in the three spaces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray as xr
from arviz_stats import ess, rhat

from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.trace import open_trace

MakeTrace = Callable[..., xr.DataTree]


def posterior(**sites: np.ndarray) -> xr.DataTree:
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                {
                    name: (("chain", "draw", *(f"{name}{i}" for i in range(v.ndim - 2))), v)
                    for name, v in sites.items()
                }
            )
        }
    )


def test_weights_equal_arviz_site_by_site(trace: xr.DataTree) -> None:
    result = convergence(trace, "weight")
    assert result is not None
    expected = {
        name: (
            rhat(trace["posterior"][name].astype(float)),
            ess(trace["posterior"][name].astype(float), method="tail", prob=(0.05, 0.95)),
        )
        for name in trace["posterior"].data_vars
    }
    values = [
        np.concatenate([pair[i].to_numpy().ravel() for pair in expected.values()]) for i in (0, 1)
    ]
    np.testing.assert_allclose(result.rhat, values[0], rtol=1e-9)
    np.testing.assert_allclose(result.ess_tail, values[1], rtol=1e-9)
    assert result.labels[:2] == ("0.weight[0, 0]", "0.weight[0, 1]")
    assert result.total == len(result.labels) == 4 * 5 + 4 + 3 * 4 + 3
    assert not result.is_subset


def test_modes_show_in_weights_but_not_in_functions(trace: xr.DataTree) -> None:
    weight, function = convergence(trace, "weight"), convergence(trace, "function")
    assert weight is not None
    assert function is not None
    assert np.median(weight.rhat) > 1.5
    assert np.median(function.rhat) < 1.03
    assert function.total == 40


def test_subset_is_seeded_and_holds_the_same_weights_in_both_spaces(trace: xr.DataTree) -> None:
    raw, canonical, again, other = (
        convergence(trace, space, max_scalars=11, seed=seed)
        for space, seed in (("weight", 3), ("canonical", 3), ("weight", 3), ("weight", 4))
    )
    assert raw.labels == canonical.labels == again.labels
    assert raw.labels != other.labels
    assert (len(raw.labels), raw.total, raw.is_subset) == (11, 39, True)
    whole = convergence(trace, "weight")
    np.testing.assert_array_equal(
        raw.rhat, [whole.rhat[whole.labels.index(label)] for label in raw.labels]
    )


def test_order_of_variables_in_the_canonical_group_does_not_matter(trace: xr.DataTree) -> None:
    turned = trace.copy()
    group = trace["canonical_posterior"].to_dataset()
    turned["canonical_posterior"] = xr.DataTree(group[list(group.data_vars)[::-1]])
    assert (
        convergence(turned, "canonical", max_scalars=11).labels
        == convergence(trace, "weight", max_scalars=11).labels
    )


def test_lazy_equals_loaded(
    trace: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace.to_netcdf(tmp_path / "trace.nc")
    lazy = open_trace(tmp_path / "trace.nc", chunks={"draw": 7})
    whole = convergence(trace, "weight")
    monkeypatch.setattr("pyro_bnn.diagnostics.convergence._BATCH", 1_000)
    parts = convergence(lazy, "weight")
    lazy.close()
    np.testing.assert_array_equal(parts.rhat, whole.rhat)
    np.testing.assert_array_equal(parts.ess_bulk, whole.ess_bulk)
    assert parts.labels == whole.labels


def test_constant_and_nonfinite_scalars_are_named() -> None:
    values = np.random.default_rng(0).normal(size=(4, 30, 5))
    values[:, :, 1] = 2.5
    values[2, 7, 3] = np.nan
    values[0, 0, 4] = np.inf
    result = convergence(posterior(w=values, s=np.ones((4, 30))), "weight")
    assert result.constant == ("w[1]", "s")
    assert result.nonfinite == ("w[3]", "w[4]")
    assert np.isnan(result.rhat).tolist() == [False, True, False, True, True, True]
    assert set(result.worst(9)) == {0, 2}


def test_worst_comes_first_and_falls_back_on_ess_for_one_chain() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 50, 6))
    values[0, :, 2] += 3
    values[0, :, 5] += 9
    assert convergence(posterior(w=values), "weight").worst(2) == [5, 2]
    slow = rng.normal(size=(1, 200, 3))
    slow[0, :, 1] = np.cumsum(slow[0, :, 1])
    assert convergence(posterior(w=slow), "weight").worst(1) == [1]


@pytest.mark.parametrize("space", ["weight", "canonical", "function"])
def test_missing_group_gives_none(space: str) -> None:
    assert convergence(xr.DataTree(), space) is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_trace() -> None:
    shape = (16, 1_000, 2_410)
    values = dask.array.random.default_rng(0).normal(size=shape, chunks=(16, 100, 2_410))
    trace = posterior(w=values.astype(np.float32))
    tracemalloc.start()
    result = convergence(trace, "weight", max_scalars=700)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result.rhat) == 700
    assert result.rhat.max() < 1.01
    assert peak < 150e6
