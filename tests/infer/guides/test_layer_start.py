"""Starts from the layers: in the bounds of PyTorch's own, independent, for networks only."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError, lift
from pyro_bnn.infer.guides.layer_start import init_to_layers
from pyro_bnn.nn import Hierarchical, Normal, gaussian

X, Y = torch.zeros(4, 25), torch.zeros(4)


def test_weights_start_within_the_bounds_of_their_layer():
    net = nn.Sequential(nn.Linear(25, 40), nn.ReLU(), nn.Linear(40, 1))
    bnn = lift(net, prior=Normal(scale=100.0))
    density = LogDensity(lambda x, y=None: gaussian(bnn(x), y), X, Y)
    generator = torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    position = density.initial_position(3, generator, strategy=init_to_layers(density))
    start = density.constrain(position)
    weight = start["0.weight"]
    assert float(weight.abs().max()) <= 1 / 5
    # Uniform on [-1/5, 1/5]: of 3,000 values, the mean square is within five standard errors.
    assert float(weight.square().mean()) == pytest.approx(
        0.2**2 / 3, abs=5 * 0.2**2 * (4 / 45 / weight.numel()) ** 0.5
    )
    assert not torch.equal(weight[0], weight[1])
    assert bool((start["noise"] > 0).all())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_sites_that_are_no_parameters_may_come_first():
    bnn = lift(nn.Linear(25, 1), prior=Normal(scale=100.0))
    second = lift(nn.Linear(25, 1), prior=Hierarchical(spread=100.0), prefix="second.")

    def model(x, y=None):
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        mean = (bnn(x) + second(x)).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)

    density = LogDensity(model, X, Y)
    source = torch.Generator().manual_seed(0)
    start = density.constrain(
        density.initial_position(20, source, strategy=init_to_layers(density))
    )
    for name in ("weight", "bias", "second.weight", "second.bias"):
        assert float(start[name].abs().max()) <= 1 / 5
    assert len(start["second.weight.relevance"].unique()) == 20


def test_layers_are_found_on_few_rows():
    """The activations of all rows at once, which are kept meanwhile, may not fit."""
    seen = []
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    bnn = lift(net, prior=Normal())
    density = LogDensity(
        lambda x, y=None: gaussian(bnn(x), y), torch.ones(3000, 2), torch.ones(3000)
    )
    init_to_layers(density)
    assert max(seen) < 3000


def test_a_model_without_a_network_is_refused():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(UserError, match="no latent site is the parameter of a module"):
        init_to_layers(LogDensity(model, Y))
