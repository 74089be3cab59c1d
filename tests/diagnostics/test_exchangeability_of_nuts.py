"""The exchangeability test of real chains: NUTS that keeps its units in one order is rejected."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import kstest

from pyro_bnn.diagnostics.exchangeability import exchangeability
from pyro_bnn.infer import MCMC, NUTS
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import OrbitMove, discover

pytestmark = pytest.mark.slow

UNITS, CHAINS, DRAWS = 3, 4, 200

X = torch.linspace(-2, 2, 24, dtype=torch.float64)[:, None]
Y = (torch.tanh(6 * (X + 1)) - torch.tanh(3 * X) + torch.tanh(6 * (X - 1)))[:, 0]


def model(x, y):
    """Fit three steps by three hidden units: none can be spared, so none can pass another."""

    def normal(name, scale, *shape):
        return pyro.sample(name, dist.Normal(x.new_zeros(shape), scale).to_event(len(shape)))

    w1, b1, w2 = normal("w1", 3.0, UNITS, 1), normal("b1", 3.0, UNITS), normal("w2", 1.0, UNITS)
    hidden = torch.tanh(x @ w1.mT + b1[..., None, :])
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal((hidden @ w2[..., None])[..., 0], 0.1), obs=y)


@pytest.fixture(scope="module")
def density() -> LogDensity:
    return LogDensity(model, X, Y)


def sampled(density: LogDensity, **move: object) -> dict[str, NDArray[np.float64]]:
    mcmc = MCMC(
        NUTS(density),
        num_samples=DRAWS,
        warmup_steps=DRAWS,
        num_chains=CHAINS,
        seed=0,
        disable_progbar=True,
        **move,
    )
    mcmc.run()
    return {name: one.numpy() for name, one in mcmc.get_samples(group_by_chain=True).items()}


@pytest.fixture(scope="module")
def plain(density: LogDensity) -> dict[str, NDArray[np.float64]]:
    return sampled(density)


def trace_of(draws: dict[str, NDArray[np.float64]]) -> xr.DataTree:
    posterior = xr.Dataset(
        {
            "w1": (("chain", "draw", "h0", "x0"), draws["w1"]),
            "b1": (("chain", "draw", "h0"), draws["b1"]),
            "w2": (("chain", "draw", "h0"), draws["w2"]),
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior})


def steps(draws: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Where each unit changes sign, ``(chain, draw, unit)``."""
    return -draws["b1"] / draws["w1"][..., 0]


def test_nuts_that_never_swaps_two_units_is_rejected(plain) -> None:
    order = np.argsort(steps(plain), axis=-1)
    assert (order == order[:, :1]).all(), "a chain swapped two units: it is another case"
    found = exchangeability(trace_of(plain))["h0"]
    assert found.draws > 100
    assert found.p_value < 1e-3
    assert found.chains == CHAINS


def test_the_same_draws_with_their_units_shuffled_have_uniform_p_values(plain) -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        order = rng.permuted(np.tile(np.arange(UNITS), (CHAINS, DRAWS, 1)), axis=-1)
        shuffled = {
            name: np.take_along_axis(one, order[..., None] if one.ndim == 4 else order, axis=2)
            for name, one in plain.items()
        }
        p_values.append(exchangeability(trace_of(shuffled), 499)["h0"].p_value)
    assert kstest(p_values, "uniform").pvalue > 1e-4
    rejected = np.mean(np.array(p_values) <= 0.05)
    assert rejected < 0.05 + 5 * np.sqrt(0.05 * 0.95 / 200)


def test_nuts_followed_by_a_move_over_the_orders_passes(density: LogDensity) -> None:
    draws = sampled(density, move=OrbitMove(density, discover(density)), move_every=1)
    found = exchangeability(trace_of(draws))["h0"]
    assert found.p_value > 1e-3
    assert found.stuck == 0
