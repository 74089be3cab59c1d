"""Sampling with the orbit move: the same functions, the right scales, identities at convergence."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats
from torch import nn

from pyro_bnn.infer import HMC, MCMC, NUTS
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.nn import Normal, lift
from pyro_bnn.symmetry import OrbitMove, discover, identities

INPUTS, UNITS, ROWS = 2, 4, 8
SHAPES = {"w1": (INPUTS, UNITS), "b1": (UNITS,), "w2": (UNITS,)}


def network(x, w1, b1, w2):
    return (torch.relu(x @ w1 + b1[..., None, :]) @ w2[..., None])[..., 0]


def model(x, y):
    w = {
        name: pyro.sample(name, dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))
        for name, shape in SHAPES.items()
    }
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=network(x, **w)), obs=y)


@pytest.fixture(scope="module")
def problem():
    x = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).float()
    density = LogDensity(model, x, y)
    return x, y, density, discover(density)


def truth(x, y, draws=100_000):
    """Mean output at every input under the posterior: prior draws, weighted by the likelihood."""
    generator = torch.Generator().manual_seed(1)
    w = {k: torch.randn(draws, *shape, generator=generator) for k, shape in SHAPES.items()}
    outputs = network(x, **w)
    level = -nn.functional.binary_cross_entropy_with_logits(
        outputs, y.expand_as(outputs), reduction="none"
    ).sum(1)
    weights = level.softmax(0)[:, None]
    mean = (weights * outputs).sum(0)
    error = (weights * (outputs - mean)).square().sum(0).sqrt()
    assert 1 / weights.square().sum() > 1000
    return mean.numpy(), error.numpy()


def sampled(problem, *, warmup, draws, every, chains=24, **options):
    x, _, density, group = problem
    mcmc = MCMC(
        HMC(density, num_steps=10, jitter=0.5, **options.pop("kernel", {})),
        num_samples=draws,
        warmup_steps=warmup,
        num_chains=chains,
        seed=0,
        disable_progbar=True,
        move=OrbitMove(density, group),
        move_every=every,
        **options,
    )
    mcmc.run()
    draws = mcmc.get_samples(group_by_chain=True)
    return draws, network(x, **draws).numpy()


@pytest.mark.parametrize("every", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_functions_keep_their_posterior_means(problem, every):
    expected, bias = truth(*problem[:2])
    _, outputs = sampled(problem, warmup=40, draws=100, every=every)
    ess = array_stats.ess(outputs, chain_axis=0, draw_axis=1, method="mean")
    assert ess.min() > 300
    error = np.sqrt(outputs.var((0, 1)) / ess + bias**2)
    assert np.abs((outputs.mean((0, 1)) - expected) / error).max() < 5


def test_the_move_repairs_the_scales_that_chains_start_with(problem):
    _, _, density, group = problem
    generator = torch.Generator().manual_seed(0)
    values = {k: torch.randn(200, *shape, generator=generator) for k, shape in SHAPES.items()}
    scale = torch.tensor(6.0)
    start = {"w1": scale * values["w1"], "b1": scale * values["b1"], "w2": values["w2"] / scale}
    fixed = {"step_size": 0.02, "adapt_step_size": False, "adapt_mass_matrix": False}
    scores = {}
    for every in (1, 10**6):
        draws, _ = sampled(
            problem,
            warmup=0,
            draws=10,
            every=every,
            chains=200,
            initial_params=start,
            kernel=fixed,
        )
        last = {name: value[:, -1] for name, value in draws.items()}
        scores[every] = identities(group, last, density)["virial of h0"].pooled_z
    assert abs(scores[1]) < 5
    assert abs(scores[10**6]) > 8


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC, NUTS], ids=lambda kernel: kernel.__name__)
def test_a_converged_run_satisfies_every_identity(kernel):
    """Hold two layers of units and a softmax to their identities, without any orbit move."""
    net = nn.Sequential(
        nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4), nn.LeakyReLU(0.2), nn.Linear(4, 3)
    )
    bnn = lift(net, prior=Normal(scale=1.0))

    def classes(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    density = LogDensity(classes, x, y)
    group = discover(density)
    options = {"num_steps": 20, "jitter": 0.5} if kernel is HMC else {"max_tree_depth": 6}
    mcmc = MCMC(
        kernel(density, **options),
        num_samples=400,
        warmup_steps=300,
        num_chains=160,  # a step of small networks costs nearly the same for any number of chains
        seed=0,
        disable_progbar=True,
    )
    mcmc.run()
    draws = mcmc.get_samples(group_by_chain=True)
    found = identities(group, draws, density)
    checked = [n for n in found if n.startswith(("virial", "output shift"))]
    assert checked == [
        "virial of h0", "virial of h1", "output shift of 4.weight", "output shift of 4.bias"
    ]  # fmt: skip
    for name in checked:
        value, expectation, error = found[name].pooled
        deviation = max(1.0, abs(expectation))
        assert error < 0.1 * deviation, f"{name}: too few draws to tell"
        assert abs(value - expectation) < 3 * error, name
        assert np.abs(found[name].z).max() < 4.5, name
