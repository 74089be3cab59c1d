"""Gaussian variational guides on a regression whose posterior is known, and their gradient."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_bnn import UserError
from pyro_bnn.infer.guides import FullRank, LowRank, MeanField, Training

FAMILIES = {"MeanField": MeanField, "LowRank": LowRank, "FullRank": FullRank}


def covariance(guide):
    """Covariance matrix of a fitted guide's only member."""
    state = {name: value[0] for name, value in guide.state.items()}
    if isinstance(guide, FullRank):
        factor = state["below"].tril(-1) + state["log_diagonal"].exp().diag()
        return factor @ factor.T
    diagonal = (2 * state["log_scale"]).exp().diag()
    return diagonal + (state["factor"].T @ state["factor"] if "factor" in state else 0)


def test_the_mean_field_underestimates_the_variance_by_its_closed_form(line):
    training = Training(epochs=400, batch_size=None, learning_rate=0.1)
    guide = MeanField(line.density, training, particles=64, initial_scale=0.5).fit(seed=0)
    # The optimum: the posterior mean, and the inverse of the precision's diagonal. The noise of
    # 64 draws, at a rate that falls to zero, leaves less than 1 per cent.
    torch.testing.assert_close(guide.state["loc"][0], line.mean, rtol=1e-2, atol=1e-3)
    variance = covariance(guide).diagonal()
    torch.testing.assert_close(variance, 1 / line.precision.diagonal(), rtol=2e-2, atol=0)
    assert (variance[:2] < 0.9 * line.covariance.diagonal()[:2]).all()


@pytest.mark.parametrize("family", [FullRank, pytest.param(LowRank, marks=pytest.mark.slow)])
def test_with_correlations_it_is_the_exact_posterior(line, family):
    training = Training(epochs=400, batch_size=None, learning_rate=0.1)
    options = {"rank": 3} if family is LowRank else {}
    guide = family(line.density, training, initial_scale=0.3, particles=4, **options).fit(seed=0)
    # The gradient has no noise left at the optimum, so the tolerance is not statistical.
    torch.testing.assert_close(guide.state["loc"][0], line.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(covariance(guide), line.covariance, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_density_is_that_of_a_multivariate_normal(line, family):
    guide = family(line.density, initial_scale=0.4)
    generator = torch.Generator().manual_seed(0)
    start = guide.start(torch.zeros(1, 3).double(), line.density)
    state = {n: v + 0.1 * torch.randn(v.shape, generator=generator) for n, v in start.items()}
    guide.load_state_dict(state)
    position = guide.sample_positions(5, generator)
    normal = torch.distributions.MultivariateNormal(state["loc"][0], covariance(guide))
    torch.testing.assert_close(guide.log_density(position)[0], normal.log_prob(position[0]))
    drawn = guide.sample_positions(20_000, generator)[0]
    error = (covariance(guide).diagonal() / 20_000).sqrt()
    assert ((drawn.mean(0) - state["loc"][0]).abs() < 5 * error).all()
    torch.testing.assert_close(drawn.T.cov(), covariance(guide), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_the_gradient_is_that_of_the_elbo(line, kl_weight):
    """The mean over many draws against the closed form of the expected loss."""
    guide = MeanField(line.density, kl_weight=kl_weight, particles=20_000)
    state = {
        "loc": torch.tensor([[0.3, -1.0, 0.2]]).double(),
        "log_scale": torch.tensor([[-1.0, -1.5, -0.5]]).double(),
    }
    source = torch.Generator().manual_seed(0)
    loss, found = guide.gradient(state, line.density, None, [source])

    leaves = {name: value[0].clone().requires_grad_() for name, value in state.items()}
    loc, variance = leaves["loc"], (2 * leaves["log_scale"]).exp()
    residual = line.y - line.x @ loc
    fit = (residual.square().sum() + (line.x.square() @ variance).sum()) / (2 * 0.5**2)
    fit = fit + len(line.y) * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    divergence = 0.5 * (
        (loc.square() + variance) / 1.5**2 - 1 - 2 * leaves["log_scale"] + 2 * math.log(1.5)
    )
    expected = fit + kl_weight * divergence.sum()
    expected.backward()
    # Standard deviations of single draws are below 300 (loss) and 200 (gradients).
    assert abs(float(loss[0] - expected.detach())) < 5 * 300 / 20_000**0.5
    for name, leaf in leaves.items():
        assert ((found[name][0] - leaf.grad).abs() < 5 * 200 / 20_000**0.5).all()


def test_each_particle_takes_a_gradient(line):
    training = Training(epochs=3, batch_size=20)
    assert MeanField(line.density, training, particles=4).fit(seed=0).gradients == 3 * 2 * 4


def test_a_large_network_has_no_full_covariance(line):
    class Large:
        dim = 5000

    with pytest.raises(UserError, match="5,000 x 5,000"):
        FullRank(line.density).start(torch.zeros(1, 5000), Large())


@pytest.mark.parametrize(
    "settings", [{"initial_scale": 0.0}, {"kl_weight": -1.0}, {"particles": 0}]
)
def test_settings_that_cannot_be_are_named(line, settings):
    with pytest.raises(UserError, match="have to be positive"):
        MeanField(line.density, **settings)
    with pytest.raises(UserError, match="'adamw'"):
        MeanField(line.density, Training(optimiser="adamw"))
    with pytest.raises(UserError, match="rank is 0"):
        LowRank(line.density, rank=0)
