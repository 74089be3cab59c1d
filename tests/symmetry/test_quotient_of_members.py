"""The quotient of a collection is that of the same weights in one trace."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn.diagnostics import diagnose, summarize
from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.nn import Normal, lift
from pyro_bnn.symmetry import Quotient, discover, members
from pyro_bnn.symmetry.members import quotient_of_members
from pyro_bnn.trace import Collection, CollectionWriter, check_trace, open_trace, site_dataset

MEMBERS = 11


@pytest.fixture(scope="module")
def density():
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    bnn = lift(net, prior=Normal(scale="fan_in"))

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(bnn(x)[:, 0], 0.3), obs=y)

    return LogDensity(model, torch.linspace(-1, 1, 20).reshape(10, 2), torch.zeros(10))


@pytest.fixture
def collection(tmp_path, density):
    out = CollectionWriter(tmp_path / "c", "w", dims=discover(density).dims)
    for seed in range(MEMBERS):
        generator = torch.Generator().manual_seed(seed)
        values = {
            name: torch.randn(site.shape, generator=generator)
            for name, site in density.sites.items()
        }
        out.append(values, name=f"m{seed:02d}", seed=seed, metrics={"loss": seed})
    return Collection.open(tmp_path / "c")


@pytest.mark.parametrize("permutation", ["sort", "align"])
def test_members_are_reduced_as_the_draws_of_a_trace(collection, density, permutation, monkeypatch):
    monkeypatch.setattr(members, "TASK_MEMBERS", 3)
    group = discover(density)
    quotient = Quotient(group, permutation=permutation)
    canonical = quotient_of_members(quotient, collection, source=density)

    data = collection.dataset(None).compute()
    draws = {str(name): values.to_numpy() for name, values in data.data_vars.items()}
    tree = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    expected = Quotient(group, permutation=permutation).apply(tree, source=density)
    found = canonical.dataset(None)
    for name, values in expected["canonical_posterior"].data_vars.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
        assert found[name].dims == values.dims
    assert canonical.names == collection.names
    assert [record.seed for record in canonical.records] == list(range(MEMBERS))

    with open_trace(collection.directory) as trace:
        assert {"posterior", "canonical_posterior", "symmetry"} <= set(trace.children)
        assert ("canonical_prior" in trace.children) == (permutation == "align")
        attrs = trace["symmetry"].attrs
        assert attrs["draws"] == MEMBERS
        assert attrs["function_error"] < 1e-8
        wanted = expected["symmetry"].attrs
        assert attrs["mass_after"] == pytest.approx(wanted["mass_after"], rel=1e-6)
        assert attrs["distinct_permutations"] == wanted["distinct_permutations"]


def test_a_damaged_quotient_of_a_collection_is_told(collection, density):
    quotient_of_members(Quotient(discover(density)), collection, source=density)
    check_trace(collection.directory)
    side = collection.directory / "quotient.nc"
    content = bytearray(side.read_bytes())
    content[len(content) // 2] ^= 1
    side.write_bytes(content)
    with pytest.raises(UserError, match=r"quotient\.nc is damaged.*again by pyro-bnn quotient"):
        check_trace(collection.directory)


def test_the_diagnostics_read_a_collection(collection, density):
    quotient_of_members(Quotient(discover(density)), collection, source=density)
    for chunks in ("auto", None):
        with open_trace(collection.directory, chunks) as trace:
            summary = summarize(trace, diagnose(trace))
        assert summary["chains"] == MEMBERS
        assert summary["draws"] == 1


def test_members_appended_later_wait_for_the_next_quotient(collection, density):
    quotient = Quotient(discover(density))
    quotient_of_members(quotient, collection, source=density)
    values = {name: torch.zeros(site.shape) for name, site in density.sites.items()}
    CollectionWriter(collection.directory, "late").append(values, name="aa")
    with open_trace(collection.directory) as trace:
        assert trace["posterior"]["member"].to_numpy().tolist() == collection.names
    quotient_of_members(quotient, Collection.open(collection.directory), source=density)
    with open_trace(collection.directory) as trace:
        assert trace["canonical_posterior"]["member"].to_numpy()[0] == "aa"
        assert int(trace["symmetry"]["idle_units"][0, 0]) == 4
