"""Identities hold for exact draws and fail for others."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import discover
from pyro_bnn.symmetry.identities import identities

SCALES = {"w1": 1.0, "b1": 0.7, "w2": 0.5, "b2": 2.0}
SHAPES = {"w1": (3, 5), "b1": (5,), "w2": (5, 4), "b2": (4,)}


def model(x, y):
    w = {
        name: pyro.sample(name, dist.Normal(torch.zeros(shape), SCALES[name]).to_event(len(shape)))
        for name, shape in SHAPES.items()
    }
    logits = torch.relu(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


@pytest.fixture(scope="module")
def group():
    generator = torch.Generator().manual_seed(0)
    return discover(model, torch.randn(6, 3, generator=generator), torch.arange(6) % 4)


def prior_draws(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: SCALES[name] * torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def posterior_draws(n):
    """Exact draws: the prior, accepted in proportion to the likelihood."""
    theta = prior_draws(n)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()
    hidden = torch.relu(x @ theta["w1"] + theta["b1"][:, None])
    logits = hidden @ theta["w2"] + theta["b2"][:, None]
    chances = logits.log_softmax(-1)
    likelihood = chances[:, 0, 0] + chances[:, 1, 1]
    generator = torch.Generator().manual_seed(1)
    keep = torch.rand(n, generator=generator).log() < likelihood - likelihood.max()
    return {k: v[keep] for k, v in theta.items()}


def test_what_preserves_the_prior_is_recorded(group):
    assert group.preserves_prior == {"h0": True, "scale of h0": False}
    assert group.shifts == {"w2": 1, "b2": 0}
    assert "in part" in str(group)


def test_identities_hold_for_exact_posterior_draws(group):
    theta = posterior_draws(20_000)
    assert len(theta["b1"]) > 500
    found = identities(group, theta, SCALES)
    assert set(found) == {"virial of h0", "output shift of w2", "output shift of b2"}
    assert (found["virial of h0"].expectation == 0).all()
    for identity in found.values():
        assert abs(identity.pooled_z) < 4
        assert (np.abs(identity.z) < 4.5).all()


def test_identities_catch_wrong_scales_and_agree_with_autograd(group):
    theta = prior_draws(2000)
    wrong = {**theta, "w1": 1.3 * theta["w1"], "b2": 0.5 * theta["b2"]}
    found = identities(group, wrong, SCALES)
    assert found["virial of h0"].pooled_z > 5
    assert found["output shift of b2"].pooled_z < -5

    def log_prior(params):
        return sum(-0.5 * (params[k] / s).square().flatten(1).sum(-1) for k, s in SCALES.items())

    by_autograd = identities(group, wrong, log_prior)["stein of h0"]
    np.testing.assert_allclose(by_autograd.value, found["virial of h0"].value, rtol=1e-10)
    shaped = {k: v.reshape(4, 500, *v.shape[1:]).numpy() for k, v in wrong.items()}
    assert identities(group, shaped, SCALES)["virial of h0"].value == pytest.approx(
        found["virial of h0"].value
    )


def test_identities_refuse_what_does_not_fit(group):
    theta = prior_draws(10)
    with pytest.raises(UserError, match="w1"):
        identities(group, {k: v for k, v in theta.items() if k != "w1"}, SCALES)
    with pytest.raises(UserError, match="deviation"):
        identities(group, theta, {"w1": 1.0})


def test_modules_have_no_prior_and_logits_no_shift():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    group = discover(net, torch.zeros(5, 3))
    assert group.preserves_prior == {}
    assert group.shifts == {}
