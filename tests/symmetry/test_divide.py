"""The quotient of a trace says what it did, with the null control beside what was matched."""

from __future__ import annotations

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.null import prior_draws
from pyro_bnn.trace import open_trace, site_dataset

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(12)


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3, 7]).to_event(2))
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
    v = pyro.sample("v", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(torch.tanh(x @ w + b) @ v, noise), obs=y)


@pytest.fixture(scope="module")
def density():
    return LogDensity(model, X, Y)


@pytest.fixture(scope="module")
def group(density):
    return discover(density)


@pytest.fixture
def trace(group):
    generator = torch.Generator().manual_seed(1)
    draws = {s: torch.randn(2, 130, *sh, generator=generator) for s, sh in group.shapes.items()}
    draws["noise"] = draws["noise"].abs()
    draws["w"][1, 4] = torch.nan
    draws["v"][0, 7, 2] = 0.0
    return xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})


METHODS = [
    ("align", "barycentre"),
    ("align", "previous"),
    ("weight-matching", "first"),
    ("activation-matching", "barycentre"),
    ("nearest-neighbour", "barycentre"),
]


@pytest.mark.parametrize(("method", "reference"), METHODS)
def test_null_control_goes_with_every_matching(method, reference, trace, group, density, tmp_path):
    path = tmp_path / "trace.nc"
    trace.to_netcdf(path)
    quotient = Quotient(group, permutation=method, reference=reference)
    quotient.apply(path, source=density)
    with open_trace(path) as opened:
        found = opened.load()
    prior = found["canonical_prior"].to_dataset()
    assert dict(prior.sizes) == {"chain": 2, "draw": 100, "x0": 3, "h0": 7}
    assert set(prior) == set(group.shapes)
    assert np.isfinite(prior["w"]).all()
    assert "100 draws" in found["symmetry"].attrs["null_control"]
    # weight matching starts from the order that units have
    expected = "none" if method == "weight-matching" else "first"
    assert found["symmetry"].attrs["sort_rule"] == expected
    # the same in memory, and the posterior to be had again
    again = quotient.again().apply(trace, source=density)
    xr.testing.assert_allclose(again["canonical_prior"].to_dataset(), prior)
    restored = quotient.restore(found)
    for site in group.shapes:
        np.testing.assert_allclose(restored[site], trace["posterior"][site], rtol=1e-4, atol=1e-5)
    # draws from the prior look alike too, once they are matched
    flat = [prior[s].stack(s=("chain", "draw")).values.reshape(-1, 200) for s in ("w", "b", "v")]
    flat = np.concatenate(flat)
    assert np.square(flat.mean(1)).sum() / np.square(flat).sum(0).mean() > 1.5 / 200


def test_sorting_has_no_null_and_a_second_quotient_takes_the_first_one_away(
    trace, group, density, tmp_path
):
    path = tmp_path / "trace.nc"
    trace.to_netcdf(path)
    Quotient(group, permutation="align").apply(path, source=density)
    Quotient(group).apply(path, source=density)
    with open_trace(path) as opened:
        assert "canonical_prior" not in opened.children
        assert "null_control" not in opened["symmetry"].attrs


def test_null_control_is_left_out_with_a_word_where_there_is_no_prior(trace, group):
    found = Quotient(group, permutation="align").apply(trace)
    assert "canonical_prior" not in found.children
    assert "left out" in found["symmetry"].attrs["null_control"]


def test_prior_draws_leave_the_global_generator_alone(trace, group, density):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Quotient(group, permutation="align").apply(trace, source=density)
    assert torch.equal(torch.get_rng_state(), before)


def test_prior_draws_see_few_rows_where_there_are_many(group):
    """Many images at once, through a large network for each draw, would not fit into memory."""
    seen = []

    def watched(x, y=None):
        seen.append(len(x))
        return model(x, y)

    many = LogDensity(watched, X.repeat(300, 1), Y.repeat(300))
    seen.clear()
    draws = prior_draws(many, group, 3)
    assert draws["w"].shape == (3, 3, 7)
    assert seen == [64] * 3


def test_outputs_are_compared_where_the_first_chain_has_died(trace, group, density):
    def bent(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3, 7]).to_event(2))
        b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
        v = pyro.sample("v", dist.Normal(0.0, 1.0).expand([7]).to_event(1))
        noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            hidden = torch.nn.functional.silu(x @ w + b)
            pyro.sample("y", dist.Normal(hidden @ v, noise), obs=y)

    draws = trace["posterior"].to_dataset()
    died, all_died = (
        xr.DataTree.from_dict({"posterior": draws.where(draws.chain > last)}) for last in (0, 1)
    )
    found = Quotient(group).apply(died, source=density)
    assert 0 <= found["symmetry"].attrs["function_error"] < 1e-8
    with pytest.raises(UserError, match="another network"):
        Quotient(group).apply(died, source=LogDensity(bent, X, Y))
    found = Quotient(group).apply(all_died, source=density)
    assert np.isnan(found["symmetry"].attrs["function_error"])


def test_attributes_count_what_was_done(trace, group, density):
    found = Quotient(group).apply(trace, source=density)["symmetry"]
    counted = found.attrs
    assert counted["draws"] == 260
    assert counted["not_finite_draws"] == 1 == int(found["not_finite"].sum())
    good = found.to_dataset().where(found["not_finite"] == 0)
    for name in ("mass_before", "mass_after"):
        assert counted[name] == pytest.approx(float(good[name].mean()))
    assert counted["margin_least"] == pytest.approx(float(good["margin"].min()))
    assert counted["margin_median"] == pytest.approx(float(good["margin"].median()))
    assert 0 <= counted["function_error"] < 1e-8
    orders = found["h0"].values.reshape(260, 7)
    kept = np.delete(orders, 134, axis=0)
    distinct = json.loads(counted["distinct_permutations"])
    assert distinct == {"h0": len(np.unique(kept, axis=0)), "all": len(np.unique(kept, axis=0))}


def test_the_volume_of_each_element_is_stored():
    """Moving a draw along a small cube around it changes the cube's volume by that factor."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    group = discover(net, torch.zeros(2, 2))
    draws = {s: torch.randn(1, 4, *sh).double() for s, sh in group.shapes.items()}
    tree = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    stored = Quotient(group).apply(tree)["symmetry"]["log_abs_det"]
    assert stored.dims == ("chain", "draw")
    flat = {s: d.flatten(0, 1) for s, d in draws.items()}
    element = Quotient(group).canonicalize(flat)[1]
    for k in range(4):
        one = element[k : k + 1]
        images = []
        for site, shape in group.shapes.items():
            for entry in torch.eye(torch.Size(shape).numel(), dtype=torch.float64):
                zero = {s: torch.zeros(1, *sh).double() for s, sh in group.shapes.items()}
                moved = one.apply(zero | {site: entry.reshape(1, *shape)})
                images.append(torch.cat([v.flatten() for v in moved.values()]))
        volume = torch.linalg.slogdet(torch.stack(images))[1]
        assert float(stored[0, k]) == pytest.approx(float(volume), abs=1e-9)
    assert abs(float(stored.std())) > 0.1


def test_degenerate_units_are_counted():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    group = discover(net, torch.zeros(2, 4))
    draws = {s: torch.randn(1, 5, *sh) for s, sh in group.shapes.items()}
    draws["2.weight"][0, :3, :, 1] = 0.0
    tree = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    found = Quotient(group).apply(tree)["symmetry"]
    assert found.attrs["degenerate_units"] == 3
    assert found["degenerate_units"].values.tolist() == [[1, 1, 1, 0, 0]]


def test_half_precision_is_computed_in_a_wider_type():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    group = discover(net, torch.zeros(2, 4))
    generator = torch.Generator().manual_seed(0)
    wide = {s: torch.randn(8, *sh, generator=generator) for s, sh in group.shapes.items()}
    half = {s: v.half() for s, v in wide.items()}
    result = Quotient(group).reduce(half)
    moved = [result.params[s] for s in ("0.weight", "0.bias", "2.weight")]
    assert all(v.dtype == torch.float32 for v in moved)
    assert float(result.residual.max()) <= 1e-12
    exact = Quotient(group).reduce({s: v.double() for s, v in half.items()})
    for site, value in result.params.items():
        assert torch.allclose(value.double(), exact.params[site], rtol=1e-5, atol=1e-6)


def test_a_network_without_symmetry_is_left_as_it_is_and_says_so(tmp_path):
    group = discover(nn.Linear(3, 2), torch.zeros(4, 3))
    draws = {s: torch.randn(2, 6, *sh) for s, sh in group.shapes.items()}
    path = tmp_path / "trace.nc"
    xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)}).to_netcdf(path)
    Quotient(group, permutation="align").apply(path)
    with open_trace(path) as found:
        canonical = found["canonical_posterior"].to_dataset()
        xr.testing.assert_equal(canonical, found["posterior"].to_dataset())
        assert "No symmetry" in found["symmetry"].attrs["table"]
        assert json.loads(found["symmetry"].attrs["distinct_permutations"]) == {"all": 1}


def test_activation_matching_without_a_network_is_refused(trace, group):
    with pytest.raises(UserError, match="activations"):
        Quotient(group, permutation="activation-matching").apply(trace)
