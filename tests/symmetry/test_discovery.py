"""Discovery finds the known group of small networks and names what it refuses."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import SymmetryGroup, discover


def mlp(*widths, act=nn.ReLU):
    layers = []
    for m, n in itertools.pairwise(widths):
        layers += [nn.Linear(m, n), act()]
    return nn.Sequential(*layers[:-1])


def kinds(group):
    return {
        name: (
            space.size,
            space.permutable,
            sorted(f.kind for f in group.families.values() if f.space == name),
        )
        for name, space in group.spaces.items()
    }


@pytest.mark.parametrize(
    ("act", "families"),
    [
        (nn.ReLU, ["scale"]),
        (nn.LeakyReLU, ["scale"]),
        (nn.Tanh, ["sign"]),
        (nn.Softsign, ["sign"]),
        (nn.SiLU, []),
        (nn.GELU, []),
        (nn.Sigmoid, ["sign"]),
        (nn.Softplus, []),
        (nn.ELU, []),
        (nn.Identity, ["scale", "sign"]),
    ],
)
def test_mlp_group_is_that_of_its_activation(act, families):
    group = discover(mlp(4, 8, 5, 3, act=act), torch.zeros(6, 4))
    assert kinds(group) == {"h0": (8, True, families), "h1": (5, True, families)}
    assert group.dims["0.weight"] == ("h0", "x0")
    assert group.dims["2.weight"] == ("h1", "h0")
    assert group.dims["4.weight"] == ("y0", "h1")
    assert group.spaces["h0"].sites == [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]
    assert not group.unruled
    assert not group.rejected
    signs = 13 if "sign" in families else 0
    finite = math.log(math.factorial(8) * math.factorial(5)) + signs * math.log(2)
    assert group.log_order == pytest.approx(finite)
    assert group.scale_dim == (13 if "scale" in families else 0)


def by_hand(x, y=None, multiply=torch.matmul, likelihood="categorical"):
    def weight(name, *shape):
        return pyro.sample(name, dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))

    outputs = 3 if likelihood == "categorical" else 1
    w1, b1, w2 = weight("w1", 4, 7), weight("b1", 7), weight("w2", 7, outputs)
    out = multiply(torch.tanh(multiply(x, w1) + b1), w2)
    with pyro.plate("data", x.shape[0]):
        if likelihood == "categorical":
            return pyro.sample("y", dist.Categorical(logits=out), obs=y)
        out = out.squeeze(-1)
        if likelihood == "bernoulli":
            return pyro.sample("y", dist.Bernoulli(logits=out), obs=y)
        return pyro.sample("y", dist.Normal(out, 0.5), obs=y)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "normal"])
@pytest.mark.parametrize(
    "multiply",
    [
        torch.matmul,
        lambda a, w: F.linear(a, w.t()),
        lambda a, w: (w.transpose(0, 1) @ a.t()).t(),
        lambda a, w: torch.einsum("ni,io->no", a, w),
    ],
)
def test_hand_written_model(multiply, likelihood):
    torch.manual_seed(0)
    x = torch.randn(9, 4)
    y = torch.arange(9) % (3 if likelihood == "categorical" else 2)
    y = y if likelihood == "categorical" else y.float()
    group = discover(lambda x, y: by_hand(x, y, multiply=multiply, likelihood=likelihood), x, y)
    assert kinds(group) == {"h0": (7, True, ["sign"])}
    assert group.dims["w1"] == ("x0", "h0")
    assert group.dims["w2"][0] == "h0"


def test_log_density_and_learned_noise():
    def model(x, y):
        w1 = pyro.sample("w1", dist.Normal(torch.zeros(4, 6), 1.0).to_event(2))
        w2 = pyro.sample("w2", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Normal(torch.relu(x @ w1) @ w2, sigma), obs=y)

    torch.manual_seed(0)
    group = discover(LogDensity(model, torch.randn(9, 4), torch.randn(9)))
    assert kinds(group) == {"h0": (6, True, ["scale"])}
    assert group.dims["sigma"] == ()


def test_weights_outside_the_likelihood_are_named():
    def model(x, y):
        tau = pyro.sample("tau", dist.HalfCauchy(torch.ones(4, 6)).to_event(2))
        w1 = pyro.sample("w1", dist.Normal(torch.zeros(4, 6), tau).to_event(2))
        w2 = pyro.sample("w2", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Normal(torch.tanh(x @ w1) @ w2, 1.0), obs=y)

    torch.manual_seed(0)
    group = discover(model, torch.randn(9, 4), torch.randn(9))
    assert group.unused == ("tau",)
    assert "tau" in str(group)


def test_operator_without_rule_pins_and_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 4)
            self.third = nn.Linear(4, 2)

        def forward(self, x):
            return self.third(torch.tanh(torch.cumsum(self.second(torch.relu(self.first(x))), -1)))

    group = discover(Odd(), torch.zeros(6, 3))
    assert kinds(group) == {"h0": (5, True, ["scale"])}
    assert list(group.unruled) == ["aten.cumsum"]
    assert "aten.cumsum" in str(group)


def test_no_symmetry_is_said():
    group = discover(nn.Linear(3, 2), torch.zeros(4, 3))
    assert group.trivial
    assert "No symmetry" in str(group)


def test_order_is_that_of_computation_not_of_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.middle, self.first = nn.Linear(5, 2), nn.Linear(7, 5), nn.Linear(3, 7)

        def forward(self, x):
            return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))

    group = discover(Backwards(), torch.zeros(4, 3))
    assert [space.size for space in group.spaces.values()] == [7, 5]


def test_json_round_trip():
    group = discover(mlp(4, 8, 3, act=nn.ReLU), torch.zeros(6, 4))
    assert SymmetryGroup.from_json(group.to_json()) == group


def test_value_dependent_control_flow_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x) if self.layer.weight.sum() > 0 else x

    with pytest.raises(UserError, match=r"Branching cannot .*its control flow depends on values"):
        discover(Branching(), torch.zeros(4, 3))


@pytest.mark.parametrize("given", [(), (torch.zeros(4, 5),)], ids=["none", "another width"])
def test_an_example_that_the_network_does_not_take_is_named(given):
    with pytest.raises(UserError, match="Linear cannot be evaluated on the example input"):
        discover(nn.Linear(3, 2), *given)


def test_something_else_is_refused():
    with pytest.raises(UserError, match="int"):
        discover(3)
