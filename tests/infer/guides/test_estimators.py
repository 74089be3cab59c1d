"""Local reparametrisation and flipout against draws of the weights: same mean, less variance."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides import Ensemble, MeanField, Training, layer_estimator
from pyro_bnn.infer.guides.layer_noise import find_layers, noise_size
from pyro_bnn.nn import Laplace, Normal, categorical, lift

DRAWS = 2000


def classifier(net, shape, prior):
    """Density of a lifted network on 16 rows, in float64."""
    generator = torch.Generator().manual_seed(0)
    # Rows that have something in common, as images do: their noise adds up when it is shared.
    x = 1 + 0.5 * torch.randn(16, *shape, generator=generator).double()
    bnn = lift(net.double(), prior)
    return LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(16) % 3)


def linear():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False))
    return classifier(net, (4,), Normal(scale=1.0))


def convolution():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 3))
    return classifier(net, (2, 4, 4), {"3.bias": Laplace(scale=1.0), "*": Normal(scale=0.7)})


def tokens():
    class Tied(nn.Module):
        """One layer over three tokens of a row, called twice."""

        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(4, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.mix(torch.tanh(self.mix(x)))).mean(1))

    return classifier(Tied(), (3, 4), Normal(scale=1.0))


NETWORKS = {"linear": linear, "convolution": convolution, "tokens": tokens}


def gradients(density, estimator, indices):
    """Loss and gradients of many draws at one point: ``(draw,)``, ``(draw, 2 * dim)``."""
    guide = MeanField(density, estimator=estimator)
    source = torch.Generator().manual_seed(0)
    loc = 0.5 * torch.randn(1, density.dim, generator=source).double()
    state = {"loc": loc, "log_scale": torch.full_like(loc, -2.5)}
    many = {name: value.expand(DRAWS, -1) for name, value in state.items()}
    sources = [torch.Generator().manual_seed(100 + draw) for draw in range(DRAWS)]
    loss, found = guide.gradient(many, density, indices.expand(DRAWS, -1), sources)
    return loss, torch.cat([found["loc"], found["log_scale"]], 1)


@pytest.mark.parametrize(
    "network", ["linear", *(pytest.param(n, marks=pytest.mark.slow) for n in list(NETWORKS)[1:])]
)
def test_the_same_elbo_and_a_gradient_of_less_variance(network, monkeypatch):
    density = NETWORKS[network]()
    indices = torch.arange(0, 16, 2)[None]
    loss, slope = gradients(density, "plain", indices)
    # The same with a prior and an entropy in closed form: what is left is the noise of the fit.
    with monkeypatch.context() as patch:
        patch.setattr(layer_estimator, "find_layers", lambda *_, **__: {})
        _, shared = gradients(density, "local", indices)
    for estimator in ("local", "flipout"):
        other, theirs = gradients(density, estimator, indices)
        error = (loss.var() / DRAWS + other.var() / DRAWS).sqrt()
        assert abs(loss.mean() - other.mean()) < 5 * error
        errors = (slope.var(0) / DRAWS + theirs.var(0) / DRAWS).sqrt()
        assert ((slope.mean(0) - theirs.mean(0)).abs() < 5 * errors + 1e-9).all()
        ours, plain = (
            (found - found.mean(0)).square().sum(1) for found in (theirs, shared)
        )  # squared distances from the mean: their mean is the total variance
        error = (ours.var() / DRAWS + plain.var() / DRAWS).sqrt()
        assert plain.mean() - ours.mean() > 5 * error, estimator


def test_outputs_are_drawn_where_a_weight_meets_a_row_once():
    layers = find_layers(linear(), None, local=True)
    assert {name: layer.local for name, layer in layers.items()} == {
        "0.weight": True,
        "2.weight": True,
    }
    assert layers["0.weight"].bias == "0.bias"
    assert layers["2.weight"].bias is None
    layers = find_layers(convolution(), None, local=True)
    assert {name: layer.local for name, layer in layers.items()} == {
        "0.weight": False,
        "3.weight": True,
    }
    assert not find_layers(tokens(), None, local=True)["mix.weight"].local


def test_a_normal_prior_adds_no_noise():
    """Where all outputs are drawn, the weights that are drawn beside them do not count."""
    density = linear()
    estimator = layer_estimator.LayerEstimator(density, 1.0, local=True)
    layers = find_layers(density, None, local=True)
    source = torch.Generator().manual_seed(0)
    outputs = torch.randn(noise_size(layers, 16), generator=source).double()
    parameters = torch.cat([torch.ones(density.dim), -torch.ones(density.dim)]).double()
    weights = torch.randn(2, density.dim, generator=source).double()
    first, second = (
        estimator._loss(layers, parameters, torch.cat([drawn, outputs]), None) for drawn in weights
    )
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)


def test_members_do_not_see_each_other(net):
    training = Training(epochs=3, batch_size=8)
    for estimator in ("local", "flipout"):
        guide = MeanField(net.density, training, estimator=estimator, particles=2)
        ensemble = Ensemble(guide, size=2).fit(seed=3)
        alone = guide.fit(seed=ensemble.seeds[1])
        torch.testing.assert_close(
            ensemble.state["loc"][1], alone.state["loc"][0], rtol=1e-6, atol=1e-8
        )


def by_hand(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def by_hand_with_layers(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(())))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(F.linear(x, w)[:, 0], scale), obs=y)


def test_models_by_hand_need_a_layer_too():
    x, y = torch.randn(20, 3), torch.randn(20)
    guide = MeanField(LogDensity(by_hand, x, y), Training(epochs=1), estimator="local")
    with pytest.raises(UserError, match="no site of the model is the weight of a linear"):
        guide.fit(seed=0)
    guide = MeanField(LogDensity(by_hand_with_layers, x, y), Training(epochs=2), estimator="local")
    assert (guide.fit(seed=0).sample_posterior(5)["scale"] > 0).all()
    with pytest.raises(UserError, match="'flip' is unknown; known are 'plain', 'local', 'flip"):
        MeanField(by_hand, estimator="flip")
