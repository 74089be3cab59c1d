"""Stacking of the chains of one run."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics.members import member_stacking


def predictions(each: np.ndarray, draws: int = 3) -> xr.DataTree:
    values = np.repeat(each[:, None], draws, axis=1)
    group = xr.Dataset({"log_predictive": (("chain", "draw", "test"), values)})
    return xr.DataTree.from_dict({"predictions": group})


def test_a_chain_that_adds_nothing_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0.05, 0.9, size=(2, 400))
    worse = 0.5 * np.minimum(first, second)
    found = member_stacking(predictions(np.log([first, second, worse])))
    assert found is not None
    grid = np.linspace(0, 1, 2001)
    best = grid[np.argmax([np.log(w * first + (1 - w) * second).mean() for w in grid])]
    assert found.weights[2] < 1e-3
    assert found.weights[0] == pytest.approx(best, abs=2e-3)
    assert found.nll_equal == pytest.approx(-np.log((first + second + worse) / 3).mean())
    assert found.nll_stacked < found.nll_equal
    assert 1.9 < found.effective < 2.1


def test_draws_of_a_chain_are_averaged() -> None:
    values = np.log([[[0.2, 0.5], [0.6, 0.1]], [[0.3, 0.3], [0.3, 0.3]]])
    group = xr.Dataset({"log_predictive": (("chain", "draw", "test"), values)})
    found = member_stacking(xr.DataTree.from_dict({"predictions": group}))
    assert found is not None
    assert found.nll_equal == pytest.approx(-np.log([0.35, 0.3]).mean())


def test_what_cannot_be_stacked() -> None:
    assert member_stacking(xr.DataTree()) is None
    fine = np.log(np.full((2, 5), 0.5))
    assert member_stacking(predictions(fine)) is not None
    assert member_stacking(predictions(fine[:1])) is None
    assert member_stacking(predictions(fine[:, :1])) is None
    broken = fine.copy()
    broken[1, 2] = np.nan
    assert member_stacking(predictions(broken)) is None
