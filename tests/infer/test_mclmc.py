"""Unadjusted microcanonical sampling: its bias, its tuning and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch

from pyro_bnn import UserError
from pyro_bnn.infer import MCLMC
from pyro_bnn.infer.adaptation.autocorrelation import integrated_time
from pyro_bnn.infer.adaptation.energy_variance import EnergyVariance


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fixed(step_size, length, **options):
    return MCLMC(
        None,
        step_size,
        length,
        adapt_step_size=False,
        adapt_length=False,
        adapt_mass_matrix=False,
        **options,
    )


@pytest.mark.slow
def test_bias_falls_with_the_square_of_the_step(draw):
    """Exact draws of a quartic, moved for a while: what their second moment has become.

    An integrator of second order has a stationary law that is off by the square of the step, so
    that a step half as long has a quarter of the bias.
    """

    class Quartic:
        def value_and_grad(self, position):
            return (position**4).sum(1), 4 * position**3

    # The second moment under exp(-x^4).
    expected = scipy.special.gamma(0.75) / scipy.special.gamma(0.25)
    dim, chains = 10, 3000
    biases, errors = [], []
    for step_size in (2.0, 1.0):
        source = np.random.default_rng(0)
        size = source.gamma(0.25, size=(chains, dim)) ** 0.25
        start = torch.tensor(size * source.choice([-1, 1], size=(chains, dim)))
        kernel = fixed(step_size, 3.0, steps_per_draw=4)
        values, infos, _ = draw(kernel, Quartic(), start, warmup=0, draws=80)
        assert not any(bool(info.stats["diverging"].any()) for info in infos)
        squares = (values[:, 10:] ** 2).mean((1, 2))
        biases.append(abs(squares.mean() - expected))
        errors.append(squares.std() / chains**0.5)
    assert biases[1] > 10 * errors[1]
    order = np.log2(biases[0] / biases[1])
    error = (errors[0] / biases[0] + errors[1] / biases[1]) / np.log(2)
    # Three tenths for what is left of the next order, at steps as large as these.
    assert abs(order - 2) < 5 * error + 0.3, (order, error)
    assert 5 * error + 0.3 < 1


def test_gaussian_to_its_stated_bias(draw, targets, assert_mean):
    gaussian, _ = targets
    variances = torch.logspace(0, 4, 20).double()
    start = variances.sqrt() * normal(16, 20)
    kernel = MCLMC(None, steps_per_draw=20)
    values, infos, state = draw(kernel, gaussian(variances.diag()), start, warmup=200, draws=100)
    assert_mean(values, np.zeros(20), least_ess=400, what="mean")
    scaled = values**2 / variances.numpy()
    assert scaled.mean() == pytest.approx(1, abs=0.05)
    # The step size was tuned to the energy variance that was asked for.
    reached = np.mean([float(info.stats["energy_variance"].mean()) for info in infos])
    assert 0.5 < reached / 5e-4 < 2
    assert float(state.length) != pytest.approx(20**0.5)
    ratio = state.metric.inverse / variances
    assert bool(((ratio > 0.5) & (ratio < 2)).all()), ratio


def test_a_chain_that_starts_on_a_cliff_is_not_left_behind(targets):
    gaussian, _ = targets

    class Cliff(gaussian):
        """Quartic walls around a normal, a thousand times as steep where one chain starts."""

        def value_and_grad(self, position):
            value, gradient = super().value_and_grad(position)
            return value + (position**4).sum(1), gradient + 4 * position**3

    start = normal(8, 10)
    start[0] = 100.0
    density, generator = Cliff(torch.eye(10)), torch.Generator().manual_seed(0)
    kernel = MCLMC(None, steps_per_draw=10)
    state, warmup = kernel.init(start, density, generator), kernel.warmup(150)
    state = warmup.begin(state, density, generator)
    assert float(state.step_size.max() / state.step_size.min()) > 5
    for _ in range(150):
        state, info = kernel.step(state, density, generator)
        state = warmup.update(state, info, density, generator)
    assert float(state.position.abs().max()) < 3
    assert state.step_size.ndim == 0


def test_a_target_much_wider_than_the_first_length_is_reached(draw, targets):
    """Before the mass matrix is known a step is hundreds of times as long as the length."""
    gaussian, _ = targets
    start = 1000 * normal(8, 2).float()
    density = gaussian(1e6 * torch.eye(2))
    values, infos, _ = draw(MCLMC(None, steps_per_draw=10), density, start, warmup=150, draws=200)
    assert not any(bool(info.stats["diverging"].any()) for info in infos)
    assert 0.7 < values.std() / 1000 < 1.4


def test_energy_variance_predicts_the_step_that_has_it():
    source = np.random.default_rng(0)
    for first in (0.1, 10.0):
        energy = EnergyVariance.start(torch.tensor(first).double())
        for _ in range(60):
            # Variance 5e-4 at step 2, growing with the sixth power, seen through noise.
            seen = 5e-4 * (float(energy.step_size) / 2) ** 6 * source.chisquare(16) / 16
            energy = energy.update(torch.tensor(seen).double(), 5e-4)
        assert float(energy.step_size) == pytest.approx(2, rel=0.1)
    halved = energy.update(torch.tensor(torch.inf).double(), 5e-4)
    assert float(halved.step_size) == pytest.approx(float(energy.step_size) / 2)


def test_integrated_time_of_a_first_order_process():
    source, rho = np.random.default_rng(0), np.array([0.0, 0.5, 0.9])
    values = np.zeros((400, 64, 3))
    values[0] = source.normal(size=(64, 3))
    for t in range(1, 400):
        values[t] = rho * values[t - 1] + np.sqrt(1 - rho**2) * source.normal(size=(64, 3))
    found = integrated_time(torch.tensor(values)).numpy()
    np.testing.assert_allclose(found, (1 + rho) / (1 - rho), rtol=0.25)


def test_what_the_run_keeps_of_a_draw(targets):
    gaussian, _ = targets
    kernel, density = fixed(1.0, 5.0, steps_per_draw=7), gaussian(torch.eye(5))
    state = kernel.init(normal(3, 5), density, torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(1)
    new, info = kernel.step(state, density, source)
    assert info.gradients == 14
    # Seven draws of one step each are the same motion.
    single, again = fixed(1.0, 5.0, steps_per_draw=1), torch.Generator().manual_seed(1)
    variance = torch.zeros(3).double()
    for _ in range(7):
        state, one = single.step(state, density, again)
        variance += one.stats["energy_variance"] / 7
    torch.testing.assert_close(state.position, new.position)
    torch.testing.assert_close(variance, info.stats["energy_variance"])


def test_a_wall_turns_a_chain_back(targets):
    gaussian, _ = targets

    class Walled(gaussian):
        def value_and_grad(self, position):
            value, gradient = super().value_and_grad(position)
            return torch.where(position[:, 0] > 1, torch.nan, value), gradient

    kernel, density = fixed(0.5, 3.0, steps_per_draw=4), Walled(torch.eye(3))
    state = kernel.init(normal(32, 3).clamp(max=0.9), density, torch.Generator().manual_seed(0))
    source, diverging = torch.Generator().manual_seed(1), 0
    for _ in range(50):
        state, info = kernel.step(state, density, source)
        assert float(state.position[:, 0].max()) <= 1
        assert bool(state.potential.isfinite().all())
        met = info.stats["diverging"]
        assert bool((info.stats["acceptance_rate"] < 1).eq(met).all())
        diverging += int(met.sum())
    assert diverging > 10


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"length": -1.0}, "length is -1.0"),
        ({"energy_variance": 0.0}, "energy_variance is 0.0"),
        ({"steps_per_draw": 0}, "steps_per_draw is 0"),
        ({"step_szie": 0.1}, "did you mean 'step_size'"),
    ],
)
def test_options_that_are_wrong_are_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        MCLMC(None, **options)


def test_one_number_is_too_few(targets):
    gaussian, _ = targets
    with pytest.raises(UserError, match=r"MCLMC moves at unit speed.*use HMC"):
        MCLMC(None).init(normal(4, 1), gaussian(torch.eye(1)), torch.Generator())
