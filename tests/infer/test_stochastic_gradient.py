"""Stochastic-gradient kernels: their bias in closed form, their minibatches and their schedules."""

from __future__ import annotations

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer import (
    MCMC,
    SGHMC,
    SGLD,
    SGNHT,
    Cyclical,
    PolynomialDecay,
    PreconditionedSGLD,
)
from pyro_bnn.nn import Normal, lift

ROWS = 40
X = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64) + torch.sin(7 * X[:, 0])
NOISE = 0.7


def regression(x, y):
    """Regress on two standard normal weights with known noise."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, NOISE), obs=y)


@functools.cache
def density():
    return LogDensity(regression, X, Y)


def posterior():
    precision = X.mT @ X / NOISE**2 + torch.eye(2)
    return torch.linalg.solve(precision, X.mT @ Y / NOISE**2).numpy(), precision.numpy()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stationary_covariance(step_size, friction, batch_size):
    """Solve for the covariance that a step with momentum leaves as it is, discretisation and all.

    The error e of the weights and the velocity v move linearly, and a minibatch adds noise whose
    covariance is a quadratic function of e; the moments of second order close.
    """
    mean, precision = posterior()
    x, residuals = X.numpy(), (Y - X @ torch.tensor(mean)).numpy()
    slopes = -x * residuals[:, None] / NOISE**2
    curvatures = x[:, :, None] * x[:, None, :] / NOISE**2
    average = curvatures.mean(0)

    def minibatch_noise(covariance):
        squared = slopes.T @ slopes / ROWS + (curvatures @ covariance @ curvatures).mean(0)
        centre = np.outer(slopes.mean(0), slopes.mean(0)) + average @ covariance @ average
        return ROWS**2 / batch_size * (squared - centre)

    eye = np.eye(2)
    drift = -step_size * precision
    transition = np.block([[eye + drift, (1 - friction) * eye], [drift, (1 - friction) * eye]])

    def advance(moments):
        noise = 2 * friction * step_size * eye
        if batch_size is not None:
            noise = noise + step_size**2 * minibatch_noise(moments[:2, :2])
        return transition @ moments @ transition.T + np.tile(noise, (2, 2))

    # The map is affine: its fixed point solves a linear system.
    constant = advance(np.zeros((4, 4)))
    basis = np.eye(16).reshape(16, 4, 4)
    linear = np.stack([(advance(unit) - constant).ravel() for unit in basis], axis=1)
    moments = np.linalg.solve(np.eye(16) - linear, constant.ravel()).reshape(4, 4)
    return moments[:2, :2]


def sampled_covariance(kernel, *, chains=2000, burn_in=150, draws=20):
    """Covariance about the exact mean over independent chains, and its standard error."""
    mean, _ = posterior()
    start = torch.tensor(mean) + torch.randn(chains, 2, generator=generator(), dtype=torch.float64)
    source = generator(1)
    state = kernel.init(start, density(), source)
    products = np.zeros((chains, 2, 2))
    for index in range(burn_in + draws):
        state, _ = kernel.step(state, density(), source)
        if index >= burn_in:
            error = state.position.numpy() - mean
            products += error[:, :, None] * error[:, None, :] / draws
    return products.mean(0), products.std(0) / chains**0.5


@functools.cache
def largest_curvature():
    return float(np.linalg.eigvalsh(posterior()[1]).max())


@pytest.mark.parametrize("batch_size", [None, 10], ids=["full", "minibatch"])
@pytest.mark.parametrize("kind", ["SGLD", "SGHMC"])
def test_bias_on_a_linear_regression_is_that_of_the_step_size(kind, batch_size):
    """The stationary covariance to the last digit of theory, and a bias that halves with the step.

    The largest steps are a quarter of the stability limit.
    """
    _, precision = posterior()
    exact = np.linalg.inv(precision)
    biases = []
    for part in (0.5, 0.25):
        if kind == "SGLD":
            step_size, friction = part / largest_curvature(), 1.0
            kernel = SGLD(None, step_size, batch_size=batch_size)
        else:
            step_size, friction = part / largest_curvature(), 0.4
            kernel = SGHMC(None, step_size, friction=friction, batch_size=batch_size)
        expected = stationary_covariance(step_size, friction, batch_size)
        found, error = sampled_covariance(kernel)
        assert np.abs((found - expected) / error).max() < 5
        biases.append(np.trace(found - exact))
        # The bias is there to be seen: it is not a test of the exact posterior in disguise.
        assert biases[-1] > 5 * np.trace(error)
    assert 1.5 < biases[0] / biases[1] < 4.5
    theory = [
        np.trace(stationary_covariance(part / largest_curvature(), friction, batch_size) - exact)
        for part in (0.02, 0.01)
    ]
    assert theory[0] / theory[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("curvature", [0.5, 2.0])
@pytest.mark.parametrize("friction", [1.0, 0.3])
def test_variance_on_a_gaussian_has_its_closed_form(targets, curvature, friction):
    """1 / (k (1 - h k / (2 (2 - friction)))) for a curvature k: an autoregression of order 2."""
    gaussian, _ = targets
    target = gaussian(torch.eye(1) / curvature)
    step_size = 0.5
    kernel = SGHMC(None, step_size, friction=friction)
    if friction == 1:
        kernel = SGLD(None, step_size)
    source = generator()
    state = kernel.init(torch.zeros(4000, 1).double(), target, source)
    squares = []
    for index in range(100):
        state, _ = kernel.step(state, target, source)
        if index >= 60:
            squares.append(state.position.square())
    by_chain = torch.stack(squares).mean(0)
    expected = 1 / (curvature * (1 - step_size * curvature / (2 * (2 - friction))))
    error = float(by_chain.std()) / 4000**0.5
    assert abs(float(by_chain.mean()) - expected) < 5 * error
    assert abs(expected - 1 / curvature) > 5 * error


class Heated:
    """A Gaussian whose gradient comes with noise of variance `heat`, as of a minibatch."""

    heat = 40.0

    def __init__(self, gaussian):
        self.exact = gaussian
        self.generator = generator(7)

    def value_and_grad(self, position):
        value, gradient = self.exact.value_and_grad(position)
        noise = torch.randn(position.shape, generator=self.generator, dtype=position.dtype)
        return value, gradient + self.heat**0.5 * noise


def run_heated(kernel, targets, *, dim=50, chains=40, burn_in=1000, draws=200):
    gaussian, _ = targets
    target = Heated(gaussian(torch.eye(dim)))
    source = generator()
    start = torch.randn(chains, dim, generator=source, dtype=torch.float64)
    state = kernel.init(start, target, source)
    variances, stats = [], []
    for index in range(burn_in + draws):
        state, info = kernel.step(state, target, source)
        if index >= burn_in:
            variances.append(state.position.square().mean(1))
            stats.append(info.stats)
    average = {name: torch.stack([s[name].double() for s in stats]).mean(0) for name in stats[0]}
    return torch.stack(variances).mean(0), average


def test_the_thermostat_keeps_the_temperature_under_unknown_noise(targets):
    step_size, friction = 0.01, 0.1
    heat = step_size * Heated.heat / (2 * friction)
    # Untold, SGHMC is hotter by the ratio of the two noises.
    variance, stats = run_heated(SGHMC(None, step_size, friction=friction), targets)
    assert float(variance.mean()) == pytest.approx(1 + heat, rel=0.1)
    assert float(stats["kinetic_temperature"].mean()) == pytest.approx(1 + heat, rel=0.1)
    # Told the variance of the noise, it is not.
    told = SGHMC(None, step_size, friction=friction, gradient_noise=Heated.heat / 4)
    variance, _ = run_heated(told, targets)
    assert float(variance.mean()) == pytest.approx(1 + 0.75 * heat, rel=0.1)
    # The thermostat finds out: its friction rises by what the noise heats.
    variance, stats = run_heated(SGNHT(None, step_size, friction=friction), targets)
    assert float(stats["kinetic_temperature"].mean()) == pytest.approx(1, abs=0.02)
    assert float(variance.mean()) == pytest.approx(1, abs=0.05)
    assert float(stats["friction"].mean()) == pytest.approx(friction * (1 + heat), rel=0.1)


def test_preconditioned_steps_are_those_of_the_paper(targets):
    """Li et al. 2016, algorithm 1, with their epsilon twice our step and V of the summed data."""
    gaussian, _ = targets
    target = gaussian(torch.diag(torch.tensor([0.01, 100.0])))
    kernel = PreconditionedSGLD(None, step_size=0.3, decay=0.9, stability=1e-3)
    position = torch.tensor([[0.2, -4.0], [0.1, 30.0]]).double()
    state = kernel.init(position, target, generator())
    squares = (position @ target.precision) ** 2
    source, same = generator(3), generator(3)
    for _ in range(5):
        state, _ = kernel.step(state, target, source)
        gradient = position @ target.precision
        squares = 0.9 * squares + 0.1 * gradient**2
        scale = 1 / (1e-3 + squares**0.5)
        epsilon = 2 * 0.3
        noise = torch.randn(2, 2, generator=same, dtype=torch.float64)
        position = position - epsilon / 2 * scale * gradient + (epsilon * scale) ** 0.5 * noise
        torch.testing.assert_close(state.position, position)
        torch.testing.assert_close(state.memory, squares)


def test_preconditioned_variances_are_near_those_of_the_target(targets):
    """Near, for the Gamma term is left out; with memories this long it is of order 1e-3."""
    gaussian, _ = targets
    variances = torch.tensor([0.25, 4.0]).double()
    target = gaussian(variances.diag())
    kernel = PreconditionedSGLD(None, step_size=0.1, decay=0.999)
    source = generator()
    start = variances.sqrt() * torch.randn(400, 2, generator=source, dtype=torch.float64)
    state = kernel.init(start, target, source)._replace(memory=(1 / variances).expand(400, 2))
    squares = torch.zeros(400, 2).double()
    for index in range(1200):
        state, _ = kernel.step(state, target, source)
        if index >= 200:
            squares += state.position.square() / 1000
    scale = variances.sqrt()
    expected = variances / (1 - 0.1 * scale / variances / 2)
    assert bool(((squares.mean(0) / expected - 1).abs() < 0.05).all()), squares.mean(0) / expected


# Minibatches


def test_minibatches_are_drawn_for_each_chain_at_each_step():
    kernel = SGLD(None, 1e-4, batch_size=300)
    source = generator()
    state = kernel.init(torch.zeros(4, 2).double(), density(), source)
    new, _ = kernel.step(state, density(), source)
    assert new.rows.shape == (4, 300)
    assert len({tuple(rows.tolist()) for rows in (*state.rows, *new.rows)}) == 8
    assert set(new.rows.flatten().tolist()) == set(range(ROWS))
    # What the state carries belongs to its position and its rows.
    potential, gradient = density().value_and_grad(new.position, indices=new.rows)
    torch.testing.assert_close(new.potential, potential)
    torch.testing.assert_close(new.gradient, gradient)


def test_minibatch_gradients_are_unbiased():
    kernel = SGLD(None, 1e-4, batch_size=5)
    position = torch.tensor([[0.3, -1.0]]).double().expand(5000, 2)
    state = kernel.init(position, density(), generator())
    _, expected = density().value_and_grad(position[:1])
    error = state.gradient.std(0) / 5000**0.5
    assert bool(((state.gradient.mean(0) - expected[0]).abs() < 5 * error).all())


def test_control_variates_take_away_the_noise_near_the_centre():
    """A tenth of a posterior deviation from the mode they cut the variance 50-fold at least."""
    mean, precision = posterior()
    chains = 5000
    centre = torch.tensor(mean).expand(chains, 2)
    away = torch.randn(chains, 2, generator=generator(5), dtype=torch.float64)
    away = 0.1 * away @ torch.linalg.cholesky(torch.tensor(np.linalg.inv(precision))).mT
    gradients = {}
    for controlled in (False, True):
        kernel = SGLD(None, 1e-4, batch_size=5, control_variates=controlled)
        state = kernel.init(centre, density(), generator())
        moved = kernel.moved(state, centre + away, density())
        _, exact = density().value_and_grad(centre + away)
        gradients[controlled] = moved.gradient - exact
        assert bool(moved.potential.isfinite().all())
    plain, cut = gradients[False], gradients[True]
    assert bool((plain.var(0) / cut.var(0) > 50).all())
    assert bool((cut.mean(0).abs() < 5 * cut.std(0) / chains**0.5).all())
    # At the centre itself nothing is left to chance.
    kernel = SGLD(None, 1e-4, batch_size=5, control_variates=True)
    state = kernel.init(centre[:3] + 1, density(), generator())
    potential, exact = density().value_and_grad(centre[:3] + 1)
    torch.testing.assert_close(state.gradient, exact)
    torch.testing.assert_close(state.potential, potential)


def test_control_variates_count_two_gradients():
    kernel = SGLD(None, 1e-4, batch_size=5, control_variates=True, steps_per_draw=3)
    source = generator()
    state = kernel.init(torch.zeros(2, 2).double(), density(), source)
    _, info = kernel.step(state, density(), source)
    assert info.gradients == 6


def test_a_model_without_rows_has_no_minibatches():
    def scalar():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor(0.5))

    with pytest.raises(UserError, match="leave batch_size out"):
        run_mcmc(SGLD(scalar, batch_size=3), args=())


# Schedules


def run_mcmc(kernel, *, args=(X, Y), resume=False, **settings):
    settings = {"num_samples": 6, "warmup_steps": 0, "num_chains": 3, "seed": 5, **settings}
    mcmc = MCMC(kernel, disable_progbar=True, **settings)
    mcmc.run(*args, resume=resume)
    return mcmc


def test_cycles_draw_in_their_sampling_stage_only():
    schedule = Cyclical(cycle_steps=10, exploration=0.5)
    kernel = SGHMC(density(), 1e-3, batch_size=5, schedule=schedule, steps_per_draw=2)
    stats = run_mcmc(kernel).to_datatree()["sample_stats"]
    # Two draws a cycle, at its steps 7 and 9, of 10; the last step is not used.
    assert stats["n_steps"][0].values.tolist() == [7, 2, 8, 2, 8, 2]
    shapes = [0.5 * (1 + np.cos(np.pi * step / 10)) for step in (6, 8)]
    np.testing.assert_allclose(stats["step_size"][0], np.tile(shapes, 3) * 1e-3)
    # Warm-up is counted in draws as well, and takes the first cycle here.
    stats = run_mcmc(kernel, warmup_steps=2, num_samples=2).to_datatree()["sample_stats"]
    assert stats["n_steps"][0].values.tolist() == [8, 2]


@pytest.mark.parametrize("kind", [SGLD, SGHMC, SGNHT, PreconditionedSGLD])
def test_exploration_is_an_optimiser(kind, targets):
    """Without noise in data or steps, chains that start together stay together at the mode."""
    gaussian, _ = targets
    target = gaussian(torch.eye(2))
    kernel = kind(None, 0.1, schedule=Cyclical(cycle_steps=1000, exploration=0.5))
    source = generator()
    state = kernel.init(torch.ones(3, 2).double(), target, source)
    for _ in range(400):
        state = kernel._move(state, source, noisy=False)
        state = state._replace(gradient=state.position)
    assert float(state.position.abs().max()) < (0.2 if kind is PreconditionedSGLD else 1e-6)


def test_polynomial_steps_are_those_of_welling_and_teh():
    a, b, power = 0.3, 50.0, 0.6
    schedule = PolynomialDecay(power=power, offset=b)
    kernel = SGLD(density(), a * b**-power, schedule=schedule, batch_size=5, steps_per_draw=4)
    found = run_mcmc(kernel, warmup_steps=1).to_datatree()["sample_stats"]["step_size"][0]
    expected = [a * (b + t) ** -power for t in range(7, 28, 4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Cyclical(cycle_steps=0), "cycle_steps is 0"),
        (lambda: Cyclical(exploration=1.0), r"exploration is 1\.0"),
        (lambda: PolynomialDecay(power=0.5), r"power is 0\.5"),
        (lambda: PolynomialDecay(offset=0.0), r"offset is 0\.0"),
        (lambda: SGLD(None, batch_size=0), "SGLD: batch_size is 0"),
        (lambda: SGLD(None, steps_per_draw=0), "steps_per_draw is 0"),
        (lambda: SGLD(None, control_variates=True), "control_variates need a batch_size"),
        (lambda: SGHMC(None, friction=0.0), r"SGHMC: friction is 0\.0"),
        (lambda: SGNHT(None, friction=1.5), r"SGNHT: friction is 1\.5"),
        (lambda: SGHMC(None, 0.1, 0.1, gradient_noise=3.0), "between 0 and .*= 2"),
        (lambda: PreconditionedSGLD(None, decay=1.0), r"decay is 1\.0"),
        (lambda: PreconditionedSGLD(None, stability=0.0), r"stability is 0\.0"),
        (
            lambda: SGLD(None, steps_per_draw=11, schedule=Cyclical(100, 0.9)),
            "sampling stage of a cycle has 10 steps",
        ),
    ],
)
def test_settings_out_of_range(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


# Runs


def of_every_kind(**options):
    return [kind(density(), **options) for kind in (SGLD, PreconditionedSGLD, SGHMC, SGNHT)]


OPTIONS = {
    "batch_size": 5,
    "steps_per_draw": 2,
    "control_variates": True,
    "schedule": Cyclical(cycle_steps=12, exploration=0.5),
}


@pytest.mark.parametrize("moment", [("Warmup", 2), ("Sample", 3)], ids=["warm-up", "draws"])
@pytest.mark.parametrize("kernel", of_every_kind(**OPTIONS), ids=lambda k: type(k).__name__)
def test_resumed_draws_are_those_of_an_uninterrupted_run(tmp_path, kernel, moment):
    settings = {"num_samples": 8, "warmup_steps": 4, "segment_draws": 2}
    whole = run_mcmc(kernel, **settings).get_samples()["weight"]

    def power_cut(kernel, params, stage, index):
        if (stage, index) == moment:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_mcmc(kernel, **settings, run_dir=tmp_path, hook_fn=power_cut)
    resumed = run_mcmc(kernel, **settings, run_dir=tmp_path, resume=True)
    assert torch.equal(resumed.get_samples()["weight"], whole)


def by_hand(x, y):
    """Write the network of `lifted` out."""

    def normal(name, *shape):
        return pyro.sample(name, dist.Normal(x.new_zeros(shape), 1.0).to_event(len(shape)))

    w1, b1 = normal("0.weight", 3, 2), normal("0.bias", 3)
    w2, b2 = normal("2.weight", 1, 3), normal("2.bias", 1)
    mean = (torch.tanh(x @ w1.mT + b1) @ w2.mT + b2).squeeze(-1)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, NOISE), obs=y)


def lifted():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    bnn = lift(net, prior=Normal(scale=1.0))

    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), NOISE), obs=y)

    return model


def test_lifted_and_written_out_models_draw_the_same():
    x, y = X.float(), Y.float()
    densities = {}
    for name, model in (("by hand", by_hand), ("lifted", lifted())):
        densities[name] = LogDensity(model, x, y)
    sites = densities["by hand"].sites
    start = {n: 0.1 * torch.ones(3, *s.unconstrained_shape) for n, s in sites.items()}
    for kind in (SGLD, PreconditionedSGLD, SGHMC, SGNHT):
        drawn = {
            name: run_mcmc(
                kind(found, 1e-3, batch_size=5), num_samples=3, initial_params=start
            ).get_samples()
            for name, found in densities.items()
        }
        for site, values in drawn["lifted"].items():
            assert values.dtype == drawn["by hand"][site].dtype
            torch.testing.assert_close(values, drawn["by hand"][site], rtol=1e-3, atol=1e-4)
            assert len(values.unique(dim=0)) == 9


def test_a_move_follows_every_step():
    kernel = SGHMC(density(), 1e-3, batch_size=5)
    mcmc = run_mcmc(kernel, move=lambda position, generator: -position, num_samples=2)
    assert bool(mcmc.to_datatree()["sample_stats"]["lp"].notnull().all())
