"""Dual averaging, windows and pooled variances, each against its definition."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc.adaptation import WarmupAdapter

from pyro_bnn.infer import HMC, MCMC
from pyro_bnn.infer.adaptation.dual_averaging import DualAveraging
from pyro_bnn.infer.adaptation.first_step_size import reasonable_step_size
from pyro_bnn.infer.adaptation.mass_matrix import PooledVariance
from pyro_bnn.infer.adaptation.schedule import window_ends
from pyro_bnn.infer.kernels.hamiltonian import metric_from_variance


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("first", [1e-3, 10.0])
def test_dual_averaging_reaches_the_target_from_either_side(target, first):
    random = np.random.default_rng(0)
    averaging = DualAveraging.start(torch.tensor([first], dtype=torch.float64))
    for _ in range(1000):
        # The acceptance rate falls with the step, seen through noise.
        step = averaging.log_step.exp()
        acceptance = torch.exp(-(step**2)) + random.normal(0, 0.05)
        averaging = averaging.update(acceptance.clamp(0.0, 1.0), target)
    reached = math.exp(-(float(averaging.log_averaged.exp()) ** 2))
    assert reached == pytest.approx(target, abs=0.02)


def test_dual_averaging_follows_the_published_recursion():
    """Hoffman & Gelman 2014, algorithm 5, lines 14 to 16, written with its own sums."""
    acceptances = [0.1, 0.9, 0.7, 1.0, 0.4]
    averaging = DualAveraging.start(torch.tensor(0.3, dtype=torch.float64))
    mu, mean_error, log_average = math.log(3.0), 0.0, 0.0
    for m, acceptance in enumerate(acceptances, 1):
        averaging = averaging.update(torch.tensor(acceptance, dtype=torch.float64), 0.8)
        mean_error = (1 - 1 / (m + 10)) * mean_error + (0.8 - acceptance) / (m + 10)
        log_step = mu - math.sqrt(m) / 0.05 * mean_error
        log_average = m**-0.75 * log_step + (1 - m**-0.75) * log_average
        assert float(averaging.log_step) == pytest.approx(log_step, rel=1e-12)
    assert float(averaging.log_averaged) == pytest.approx(log_average, rel=1e-12)


def test_chains_with_step_sizes_of_their_own_do_not_mix():
    both = DualAveraging.start(torch.tensor([0.1, 2.0], dtype=torch.float64))
    alone = DualAveraging.start(torch.tensor(2.0, dtype=torch.float64))
    for rate in (0.3, 0.9, 0.6):
        both = both.update(torch.tensor([1.0, rate], dtype=torch.float64), 0.8)
        alone = alone.update(torch.tensor(rate, dtype=torch.float64), 0.8)
    assert torch.equal(both.log_step[1], alone.log_step)


def test_a_chain_that_starts_on_a_cliff_is_not_left_behind():
    """One chain starts at a noise of 1e-4, where the others' step size accepts nothing."""
    y = torch.randn(200, generator=torch.Generator().manual_seed(0))

    def model():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)

    log_noise = torch.zeros(8)
    log_noise[0] = math.log(1e-4)
    mcmc = MCMC(
        HMC(model, num_steps=8, jitter=0.5),
        20,
        warmup_steps=100,
        num_chains=8,
        initial_params={"mean": torch.full((8,), 0.5), "noise": log_noise},
        disable_progbar=True,
    )
    mcmc.run()
    rates = mcmc.to_datatree()["sample_stats"]["acceptance_rate"].mean("draw")
    assert float(rates.min()) > 0.3


def test_windows_of_stan():
    assert window_ends(1000) == (75, [100, 150, 250, 450, 950])
    assert window_ends(150) == (75, [100])
    assert window_ends(19) == (19, [])
    assert window_ends(0) == (0, [])


@pytest.mark.parametrize("num_steps", [100, 149, 150, 151, 224, 225, 226, 300, 775, 3001])
def test_windows_are_those_of_pyro(num_steps):
    adapter = WarmupAdapter()
    adapter._warmup_steps = num_steps
    first, *windows, last = adapter._build_adaptation_schedule()
    start, ends = window_ends(num_steps)
    assert start == first.end + 1
    assert ends == [window.end + 1 for window in windows]
    assert last.start == ends[-1]


@pytest.mark.parametrize("num_steps", [20, 35, 99])
def test_short_warm_ups_keep_ten_steps_for_the_step_size(num_steps):
    start, ends = window_ends(num_steps)
    assert 0 < start < ends[-1] == num_steps - 10


@pytest.mark.parametrize("dense", [False, True])
def test_pooled_variance_is_the_covariance_within_chains(dense):
    random = np.random.default_rng(0)
    mixing = random.normal(size=(4, 4))
    draws = random.normal(size=(3, 20, 4)) @ mixing + 100 * random.normal(size=(3, 1, 4))
    pooled = PooledVariance.like(torch.zeros(3, 4, dtype=torch.float64), dense=dense)
    for index in range(20):
        pooled.update(torch.tensor(draws[:, index]))
    within = np.mean([np.cov(chain, rowvar=False) for chain in draws], axis=0)
    count = 60
    expected = count / (count + 5) * within + 1e-3 * 5 / (count + 5) * np.eye(4)
    found = pooled.estimate().numpy()
    # Rounding: the chains are a hundred deviations apart.
    np.testing.assert_allclose(found, expected if dense else expected.diagonal(), rtol=1e-9)


def test_step_size_search_scales_with_the_target(targets):
    gaussian, _ = targets
    found = []
    for scale in (1e-3, 1.0, 1e3):
        density = gaussian(scale**2 * torch.eye(5))
        start = scale * torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).double()
        state = HMC(None).init(start, density, torch.Generator())
        step_size = reasonable_step_size(state, density, torch.Generator().manual_seed(1))
        found.append(float(step_size) / scale)
    # It halts within a factor 2 of the step that is accepted at 80 %, above it or below.
    assert max(found) < 4 * min(found)
    assert 0.3 < found[1] < 3


def test_warm_up_learns_scales_and_its_metric_is_used(build, draw, targets):
    gaussian, _ = targets
    deviations = torch.tensor([0.1, 1.0, 10.0]).double()
    density = gaussian((deviations**2).diag())
    start = deviations * torch.randn(16, 3, generator=torch.Generator().manual_seed(0)).double()
    _, infos, state = draw(build(), density, start, warmup=200, draws=50)
    ratio = state.metric.inverse / deviations**2
    assert bool(((ratio > 0.5) & (ratio < 2)).all()), ratio
    torch.testing.assert_close(state.metric.factor, state.metric.inverse.rsqrt())
    assert 0.3 < float(state.step_size) < 3
    accepted = torch.stack([info.stats["acceptance_rate"] for info in infos]).mean()
    assert 0.65 < float(accepted) < 0.97


def test_what_is_not_adapted_stays(build, draw, targets):
    gaussian, _ = targets
    start = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    density = gaussian(torch.tensor([1.0, 9.0, 4.0]).diag())
    kernel = build(step_size=0.4, adapt_step_size=False)
    _, _, state = draw(kernel, density, start, warmup=100, draws=1)
    assert float(state.step_size) == pytest.approx(0.4)
    assert bool((state.metric.inverse != 1).all())
    kernel = build(step_size=0.4, adapt_mass_matrix=False)
    _, _, state = draw(kernel, density, start, warmup=100, draws=1)
    assert float(state.step_size) != pytest.approx(0.4)
    assert bool((state.metric.inverse == 1).all())


def test_a_metric_is_the_inverse_of_its_mass():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]]).double()
    metric = metric_from_variance(covariance)
    torch.testing.assert_close(metric.factor @ metric.factor.mT, torch.linalg.inv(covariance))
