"""Units without a way through are set to zero, counted, sorted last and given back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.group_json import dumps, loads
from pyro_bnn.trace import site_dataset

NET = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(), nn.Linear(5, 2))
X = torch.zeros(7, 4)
DRAWS = 4


@pytest.fixture
def group():
    return discover(NET, X)


@pytest.fixture
def theta():
    generator = torch.Generator().manual_seed(0)
    draws = {
        name: torch.randn(DRAWS, *p.shape, generator=generator, dtype=torch.float64)
        for name, p in NET.named_parameters()
    }
    draws["2.weight"][0, :, 3] = 0.0  # nothing goes out of unit 3 of the first layer
    draws["2.weight"][1, 2], draws["2.bias"][1, 2] = 0.0, 0.0  # nothing comes in to unit 2
    draws["4.weight"][2, :, 1] = 0.0  # nothing goes out of unit 1 of the second layer,
    draws["2.weight"][2, [0, 2, 3, 4], 0] = 0.0  # which is all that unit 0 of the first feeds
    return draws


def largest(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("rule", ["first", "max", "mean", "norm"])
def test_idle_units_are_zero_and_last(group, theta, rule):
    result = Quotient(group, rule=rule).reduce(theta)
    assert result.idle.tolist() == [1, 1, 2, 0]
    first = torch.cat([result.params["0.weight"], result.params["0.bias"][..., None]], -1)
    empty = (first == 0).all(-1) & (result.params["2.weight"] == 0).all(1)
    assert empty.tolist() == [[False] * 5 + [k in (0, 2)] for k in range(DRAWS)]
    second = torch.cat([result.params["2.weight"], result.params["2.bias"][..., None]], -1)
    empty = (second == 0).all(-1) & (result.params["4.weight"] == 0).all(1)
    assert empty.tolist() == [[False] * 4 + [k in (1, 2)] for k in range(DRAWS)]


def test_laws_hold_with_idle_units(group, theta):
    quotient, read = Quotient(group), computation(NET, X)
    result = quotient.reduce(theta)
    for k in range(DRAWS):
        before = read({name: value[k] for name, value in theta.items()})
        after = read({name: value[k] for name, value in result.params.items()})
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    moved = group.sample(torch.Generator().manual_seed(1), DRAWS).apply(theta)
    assert largest(quotient.reduce(moved).params, result.params) < 1e-8
    assert largest(quotient.reduce(result.params).params, result.params) < 1e-8
    assert largest(result.element.inverse().apply(result.params), theta) < 1e-12


def test_a_trace_gives_back_idle_units_from_its_posterior(group, theta):
    draws = {name: value.reshape(2, 2, *value.shape[1:]) for name, value in theta.items()}
    tree = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    quotient = Quotient(group)
    done = quotient.apply(tree)
    assert done["symmetry"]["idle_units"].values.tolist() == [[1, 1], [2, 0]]
    restored = quotient.restore(done)
    for name, array in tree["posterior"].data_vars.items():
        np.testing.assert_allclose(restored[name], array, rtol=1e-10, atol=1e-12)
    del done["posterior"]
    with pytest.raises(UserError, match="posterior"):
        quotient.restore(done)


class Normed(nn.Module):
    """A gate, and a norm with a learned epsilon: zero over zero where a unit is empty."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.eps = nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.first(x)
        h = h * torch.sigmoid(self.gate(h))
        return self.last(torch.relu(h * torch.rsqrt(h.square().mean(0) + self.eps.abs())))


def test_units_that_would_be_zero_over_zero_are_left():
    generator = torch.Generator().manual_seed(0)
    group, read = discover(Normed(), X), computation(Normed(), X)
    assert group.singular
    assert loads(dumps(group)).singular == group.singular
    theta = {
        name: torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        for name, shape in group.shapes.items()
    }
    theta["first.weight"][0, 1], theta["first.bias"][0, 1] = 0.0, 0.0
    theta["gate.weight"][1, :, 2] = 0.0
    canonical, element = Quotient(group).canonicalize(theta)
    for k in range(2):
        before = read({name: value[k] for name, value in theta.items()})
        after = read({name: value[k] for name, value in canonical.items()})
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    again, _ = Quotient(group).canonicalize(canonical)
    assert largest(again, canonical) < 1e-8
    assert largest(element.inverse().apply(canonical), theta) < 1e-10
