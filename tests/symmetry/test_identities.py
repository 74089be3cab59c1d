"""Identities hold for exact draws and fail for others; orbit Gibbs leaves a posterior alone."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import GroupElement, Quotient, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.identities import identities
from pyro_bnn.symmetry.orbit_gibbs import OrbitGibbs, draw

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


@pytest.mark.parametrize(("p", "a", "b"), [(0.5, 1.0, 2.0), (-3.0, 5.0, 0.3), (7.5, 80.0, 60.0)])
def test_scales_are_generalised_inverse_gaussian(p, a, b):
    n = 20_000
    u = draw(
        torch.full((1, n), 2 * p).double(),
        {1.0: torch.full((1, n), a).double(), -1.0: torch.full((1, n), b).double()},
        torch.Generator().manual_seed(0),
    )
    squares = (2 * u).exp().flatten().numpy()
    reference = stats.geninvgauss(p, np.sqrt(a * b), scale=np.sqrt(b / a))
    assert stats.kstest(squares, reference.cdf).pvalue > 1e-3


def test_orbit_gibbs_leaves_the_prior_and_the_function_alone(group):
    theta = prior_draws(4000)
    moved = OrbitGibbs(group, SCALES, sweeps=2)(theta, torch.Generator().manual_seed(0))
    for name, scale in SCALES.items():
        standard = (moved[name] / scale).flatten().numpy()
        assert stats.kstest(standard[:: max(len(standard) // 4000, 1)], "norm").pvalue > 1e-3
    generator = torch.Generator().manual_seed(0)
    read = computation(model, torch.randn(6, 3, generator=generator), torch.arange(6) % 4)
    for k in range(5):
        before = read({n: v[k] for n, v in theta.items()})
        after = read({n: v[k] for n, v in moved.items()})
        assert torch.allclose(before, after, rtol=1e-10)
    quotient = Quotient(group)
    a, _ = quotient.canonicalize(theta)
    b, _ = quotient.canonicalize(moved)
    assert all(torch.allclose(a[n], b[n], rtol=1e-8, atol=1e-8) for n in a)


def test_orbit_gibbs_repairs_corrupted_scales(group):
    theta = prior_draws(2000)
    doubled = torch.full((2000, 5), 0.7).double()
    corrupted = GroupElement(group, {}, {"scale of h0": doubled}, {}, 2000).apply(theta)
    assert abs(identities(group, corrupted, SCALES)["virial of h0"].pooled_z) > 5
    repaired = OrbitGibbs(group, SCALES, sweeps=3)(corrupted, torch.Generator().manual_seed(1))
    assert abs(identities(group, repaired, SCALES)["virial of h0"].pooled_z) < 4


def test_orbit_gibbs_needs_one_deviation_a_site(group):
    with pytest.raises(UserError, match="w2"):
        OrbitGibbs(group, {**SCALES, "w2": torch.tensor([1.0, 2.0])})
    with pytest.raises(UserError, match="b1"):
        OrbitGibbs(group, {"w1": 1.0, "w2": 1.0})


def test_modules_have_no_prior_and_logits_no_shift():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    group = discover(net, torch.zeros(5, 3))
    assert group.preserves_prior == {}
    assert group.shifts == {}
