"""R-hat within chains, over members and of random projections."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from arviz_stats.base import array_stats

from pyro_bnn.diagnostics.chainwise import chainwise_rhat
from pyro_bnn.diagnostics.finer import finer_convergence, member_numbers
from pyro_bnn.diagnostics.projections import random_projections


def tree(values: np.ndarray, **attrs: str) -> xr.DataTree:
    posterior = xr.Dataset({"w": (("chain", "draw", "x0"), values)})
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), "posterior": posterior})


def test_chainwise_equals_arviz_chain_by_chain() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 103)).cumsum(axis=2)
    # ArviZ halves what it is given: two halves of a chain become four quarters.
    expected = [
        np.mean([array_stats.rhat(chain[:100].reshape(2, 50)) for chain in scalar])
        for scalar in values
    ]
    np.testing.assert_allclose(chainwise_rhat(values), expected, rtol=1e-12)


def test_settled_chains_in_different_modes_pass_within_and_fail_between() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 400, 6)) + 10 * np.arange(4)[:, None, None]
    found = finer_convergence(tree(values), "weight")
    assert found is not None
    assert found.chainwise.max() < 1.03
    drifting = finer_convergence(tree(values + np.linspace(0, 5, 400)[:, None]), "weight")
    assert drifting is not None
    assert drifting.chainwise.min() > 1.2


@pytest.mark.parametrize("draws", [1, 15])
def test_short_chains_have_none(draws: int) -> None:
    found = finer_convergence(tree(np.random.default_rng(0).normal(size=(2, draws, 3))), "weight")
    assert found is not None
    assert np.isnan(found.chainwise).all()


def test_nested_equals_arviz_and_goes_by_member() -> None:
    rng = np.random.default_rng(2)
    modes = np.repeat(3 * rng.normal(size=(3, 1, 4)), 2, axis=0)
    values = rng.normal(size=(6, 50, 4)) + modes
    members = ["a", "a", "b", "b", "c", "c"]
    found = finer_convergence(tree(values, members=json.dumps(members)), "weight")
    assert found is not None
    assert found.members == 3
    expected = array_stats.rhat_nested(
        np.moveaxis(values, 2, 0), superchain_ids=np.array([0, 0, 1, 1, 2, 2])
    )
    np.testing.assert_allclose(found.nested, expected)
    assert found.nested.min() > 1.1
    # Chains of one mode dealt to different members: the members agree.
    dealt = finer_convergence(tree(values, members=json.dumps(["a", "b"] * 3)), "weight")
    assert dealt is not None
    assert dealt.nested.max() < found.nested.min()


@pytest.mark.parametrize("members", ["", "[1, 1]", "[1, 1, 2]", "[1, 1, 1, 2]", "{}", "[1,1,1,1]"])
def test_members_that_cannot_be_nested_give_none(members: str) -> None:
    values = np.random.default_rng(0).normal(size=(4, 50, 2))
    found = finer_convergence(tree(values, members=members), "weight")
    assert found is not None
    assert len(found.nested) == 0


def test_member_ids_may_be_anything() -> None:
    assert member_numbers(tree(np.zeros((3, 1, 1)), members='[7, "x", 7]'), 3).tolist() == [0, 1, 0]


def test_projections_are_sums_with_signs() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 5))
    units = np.eye(5)[None].repeat(2, axis=0)
    signs = random_projections(tree(units)["posterior"].to_dataset(), seed=4)[:, 0] * np.sqrt(5)
    assert set(np.unique(np.round(signs, 12))) == {-1, 1}
    found = random_projections(tree(values)["posterior"].to_dataset(), seed=4)
    np.testing.assert_allclose(found, np.einsum("cdx,px->pcd", values, signs) / np.sqrt(5))


def test_projections_see_what_a_small_subset_may_miss() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 200, 50))
    values[..., 31] += 30 * np.arange(4)[:, None]
    found = finer_convergence(tree(values), "weight", max_scalars=5, project_above=10)
    assert found is not None
    assert found.scalars == 5
    assert found.projected.max() > 1.5
    small = finer_convergence(tree(values), "weight")
    assert small is not None
    assert len(small.projected) == 0


def test_broken_and_constant_scalars_are_nan() -> None:
    values = np.random.default_rng(0).normal(size=(2, 40, 3))
    values[0, 3, 0] = np.nan
    values[:, :, 1] = 4.0
    found = finer_convergence(tree(values), "weight")
    assert found is not None
    assert np.isnan(found.chainwise).tolist() == [True, True, False]
    assert finer_convergence(tree(values), "canonical") is None
