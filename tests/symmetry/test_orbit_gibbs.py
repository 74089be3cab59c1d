"""Orbit Gibbs: exact conditionals, the same function, the same prior, corrupted scales repaired."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import GroupElement, OrbitGibbs, Quotient, discover, identities
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.orbit_conditional import draw

SCALES = {"w1": 1.0, "b1": 0.7, "w2": 0.5, "b2": 2.0}
SHAPES = {"w1": (3, 5), "b1": (5,), "w2": (5, 4), "b2": (4,)}
LEVEL = 1e-4


def model(x, y):
    w = {
        name: pyro.sample(name, dist.Normal(torch.zeros(shape), SCALES[name]).to_event(len(shape)))
        for name, shape in SHAPES.items()
    }
    logits = torch.relu(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


@pytest.fixture(scope="module")
def data():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4


@pytest.fixture(scope="module")
def group(data):
    return discover(model, *data)


def prior_draws(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: SCALES[name] * torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize(("p", "a", "b"), [(0.5, 1.0, 2.0), (-3.0, 5.0, 0.3), (7.5, 80.0, 60.0)])
def test_scales_are_generalised_inverse_gaussian(p, a, b):
    n = 5000
    u = draw(
        torch.full((1, n), 2 * p).double(),
        {1.0: torch.full((1, n), a).double(), -1.0: torch.full((1, n), b).double()},
        torch.Generator().manual_seed(0),
    )
    squares = (2 * u).exp().flatten().numpy()
    reference = stats.geninvgauss(p, np.sqrt(a * b), scale=np.sqrt(b / a))
    assert stats.kstest(squares, reference.cdf).pvalue > LEVEL


@pytest.mark.parametrize("masses", [{1.0: 3.0, 0.5: 2.0, -0.5: 4.0}, {1.0: 0.2, -2.0: 9.0}])
def test_other_exponents_have_the_density_that_they_should(masses):
    n, slope = 20_000, 1.5
    u = draw(
        torch.full((1, n), slope).double(),
        {e: torch.full((1, n), m).double() for e, m in masses.items()},
        torch.Generator().manual_seed(1),
    )
    grid = np.linspace(-8, 8, 8001)
    level = slope * grid - sum(m * np.exp(2 * e * grid) / 2 for e, m in masses.items())
    density = np.exp(level - level.max())
    cdf = np.cumsum(density) / density.sum()
    assert stats.kstest(u.flatten().numpy(), lambda v: np.interp(v, grid, cdf)).pvalue > LEVEL


def test_units_without_mass_or_with_broken_weights_stay():
    inward = torch.tensor([[1.0, 0.0, torch.inf, torch.nan]]).double()
    masses = {1.0: inward, -1.0: torch.ones(1, 4).double()}
    u = draw(torch.zeros(1, 4).double(), masses, torch.Generator().manual_seed(0))
    assert u[0, 0] != 0
    assert (u[0, 1:] == 0).all()


def test_orbit_gibbs_leaves_the_prior_and_the_function_alone(group, data):
    theta = prior_draws(4000)
    moved = OrbitGibbs(group, SCALES, sweeps=2)(theta, torch.Generator().manual_seed(0))
    for name, scale in SCALES.items():
        standard = (moved[name] / scale).flatten().numpy()
        step = max(len(standard) // 4000, 1)
        assert stats.kstest(standard[::step], "norm").pvalue > LEVEL
    read = computation(model, *data)
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


def test_deviations_may_differ_within_a_site(group):
    spread = {**SCALES, "w2": torch.tensor([0.2, 0.5, 1.0, 3.0])}
    theta = prior_draws(4000)
    theta["w2"] = theta["w2"] / SCALES["w2"] * spread["w2"]
    move = OrbitGibbs(group, spread, sweeps=1, permute=False)
    moved = move(theta, torch.Generator().manual_seed(0))
    standard = (moved["w2"] / spread["w2"])[:, 0]
    for k in range(4):
        assert stats.kstest(standard[:, k].numpy(), "norm").pvalue > LEVEL
    assert not torch.equal(moved["w2"], theta["w2"])


def test_orbit_gibbs_needs_every_deviation(group):
    with pytest.raises(UserError, match="b1"):
        OrbitGibbs(group, {"w1": 1.0, "w2": 1.0})
