"""Starts from the layers: in the bounds of PyTorch's own, independent, for networks only."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError, lift
from pyro_bnn.infer.guides.layer_start import init_to_layers
from pyro_bnn.nn import Normal, gaussian

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


def test_a_model_without_a_network_is_refused():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    with pytest.raises(UserError, match="no latent site is the parameter of a module"):
        init_to_layers(LogDensity(model, Y))
