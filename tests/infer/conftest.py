"""Targets whose moments are known, and a bare loop that samples them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from pyro_bnn.infer import (
    HMC,
    MCLMC,
    NUTS,
    SGHMC,
    SGLD,
    SGNHT,
    AdjustedMCLMC,
    ChEES,
    PreconditionedSGLD,
)


class Gaussian:
    """A density of mean zero and known covariance, with its gradient written out."""

    def __init__(self, covariance):
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        self.precision = torch.linalg.inv(self.covariance)

    def value_and_grad(self, position):
        gradient = position @ self.precision.to(position.dtype)
        return 0.5 * (position * gradient).sum(1), gradient


class LogGamma:
    """Logarithms of independent gamma variables: a light tail on one side only."""

    shape = 0.8

    def value_and_grad(self, position):
        grown = position.exp()
        return (grown - self.shape * position).sum(1), grown - self.shape


# Every kernel of the package, as a function of its options; new ones are covered by being listed.
EXACT = {
    "HMC": lambda **options: HMC(None, **{"num_steps": 8, "jitter": 0.5, **options}),
    "NUTS": lambda **options: NUTS(None, **options),
    "ChEES": lambda **options: ChEES(None, **options),
    "AdjustedMCLMC": lambda **options: AdjustedMCLMC(None, **{"num_steps": 10, **options}),
}
UNADJUSTED = {"MCLMC": lambda **options: MCLMC(None, **{"steps_per_draw": 5, **options})}
STOCHASTIC = {
    "SGLD": lambda **options: SGLD(None, **options),
    "PreconditionedSGLD": lambda **options: PreconditionedSGLD(None, **options),
    "SGHMC": lambda **options: SGHMC(None, **options),
    "SGNHT": lambda **options: SGNHT(None, **options),
}
KERNELS = EXACT | UNADJUSTED | STOCHASTIC


@pytest.fixture(params=EXACT, ids=str)
def build(request):
    """Return a function from options to a kernel that leaves its target invariant."""
    return EXACT[request.param]


@pytest.fixture(params=KERNELS, ids=str)
def build_any(request):
    """Return a function from options to a kernel, whatever its bias."""
    return KERNELS[request.param]


@pytest.fixture(params=EXACT | UNADJUSTED, ids=str)
def build_full_batch(request):
    """Return a function from options to a kernel that follows exact gradients."""
    return KERNELS[request.param]


@pytest.fixture(params=STOCHASTIC, ids=str)
def build_stochastic(request):
    """Return a function from options to a kernel that follows noisy gradients."""
    return STOCHASTIC[request.param]


@pytest.fixture(scope="session")
def kernel_names():
    return set(KERNELS)


@pytest.fixture(scope="session")
def targets():
    """Return the classes `Gaussian` and `LogGamma`."""
    return Gaussian, LogGamma


@pytest.fixture(scope="session")
def draw():
    """Return a function that warms a kernel up and draws ``(chain, draw, dim)``."""

    def run(kernel, density, start, *, warmup, draws, seed=1000):
        generator = torch.Generator().manual_seed(seed)
        state = kernel.init(start, density, generator)
        adaptation = kernel.warmup(warmup)
        if warmup:
            state = adaptation.begin(state, density, generator)
        for _ in range(warmup):
            state, info = kernel.step(state, density, generator)
            state = adaptation.update(state, info, density, generator)
        positions, infos = [], []
        for _ in range(draws):
            state, info = kernel.step(state, density, generator)
            positions.append(state.position)
            infos.append(info)
        return torch.stack(positions, 1).numpy(), infos, state

    return run


@pytest.fixture(scope="session")
def assert_mean():
    """Return a check of a mean to 5 Monte-Carlo standard errors, at a gated ESS."""

    def check(values, expected, *, least_ess, what):
        """Values are ``(chain, draw, dim)``, expected ``(dim,)``."""
        ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
        assert np.min(ess) >= least_ess, f"{what}: ESS {np.min(ess):.0f}"
        error = values.std((0, 1)) / np.sqrt(ess)
        off = np.abs(values.mean((0, 1)) - expected) / error
        assert np.max(off) < 5, f"{what}: off by {np.max(off):.1f} standard errors"

    return check
