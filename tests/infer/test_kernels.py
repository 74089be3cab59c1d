"""What every kernel owes: its protocol, an invariant target, and honest statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.stats
import torch

import pyro_bnn.infer
from pyro_bnn import UserError
from pyro_bnn.infer import HMC, NUTS, AdjustedMCLMC
from pyro_bnn.infer.kernels.hamiltonian import Info, metric_from_variance
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.infer.kernels.nuts import _is_turning, _turned_inside

STATS = {"lp", "acceptance_rate", "diverging", "n_steps", "step_size"}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generator(seed=1000):
    return torch.Generator().manual_seed(seed)


# Protocol


def test_every_kernel_is_covered(kernel_names):
    exported = vars(pyro_bnn.infer).values()
    kernels = {k.__name__ for k in exported if isinstance(k, type) and issubclass(k, Kernel)}
    assert kernels == kernel_names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_protocol(build_any, targets, dtype):
    gaussian, _ = targets
    density = gaussian(torch.eye(3))
    check_protocol(build_any(step_size=0.3), density, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_protocol_with_dense_mass_matrix(build, targets, dtype):
    gaussian, _ = targets
    check_protocol(build(step_size=0.3, full_mass=True), gaussian(torch.eye(3)), dtype)


def check_protocol(kernel, density, dtype):
    state = kernel.init(normal(5, 3, dtype=dtype), density, generator())
    assert isinstance(state, kernel.state_type)
    before = copy.deepcopy(state)
    options = copy.deepcopy(vars(kernel))
    new, info = kernel.step(state, density, generator())

    assert isinstance(new, kernel.state_type)
    assert isinstance(info, Info)
    assert info.gradients >= 1
    assert set(info.stats) >= STATS
    for name, value in info.stats.items():
        assert value.shape == (5,), name
    assert info.stats["diverging"].dtype == torch.bool
    assert not info.stats["n_steps"].is_floating_point()
    for old, value in zip(_leaves(before), _leaves(new), strict=True):
        assert value.shape == old.shape
        assert value.dtype == old.dtype
        assert value.dtype == dtype or not value.is_floating_point()
    # The step left its arguments and itself alone.
    for old, value in zip(_leaves(before), _leaves(state), strict=True):
        assert torch.equal(old, value)
    assert vars(kernel) == options
    # What the new state carries belongs to its position.
    potential, gradient = density.value_and_grad(new.position)
    torch.testing.assert_close(new.potential, potential)
    torch.testing.assert_close(new.gradient, gradient)
    torch.testing.assert_close(info.stats["lp"], -potential)
    assert bool((info.stats.get("energy", new.potential) >= new.potential).all())
    rate = info.stats["acceptance_rate"]
    assert bool(((rate >= 0) & (rate <= 1)).all())
    assert bool((info.stats["step_size"] == state.step_size).all())
    assert bool((info.stats["n_steps"] <= info.gradients).all())


def _leaves(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [leaf for part in state for leaf in _leaves(part)]


def test_same_seed_same_draws(build_any, draw, targets):
    gaussian, _ = targets
    density, start = gaussian(torch.eye(2)), normal(4, 2)
    runs = [draw(build_any(), density, start, warmup=30, draws=10, seed=s)[0] for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])
    # A step takes its chance from the generator that it is given, and from nowhere else.
    torch.manual_seed(77)
    again, _, _ = draw(build_any(), density, start, warmup=30, draws=10, seed=1)
    np.testing.assert_array_equal(runs[0], again)


def test_chains_move_apart(build_any, draw, targets):
    """Chains that start at one point get noise of their own."""
    gaussian, _ = targets
    values, _, _ = draw(build_any(), gaussian(torch.eye(2)), torch.zeros(4, 2), warmup=0, draws=1)
    assert len(np.unique(values[:, 0, 0])) == 4


def test_a_chain_is_the_same_among_sixteen_and_among_four(build_full_batch, targets, monkeypatch):
    """Given the same random numbers: recorded from sixteen chains, replayed to four of them."""
    _, log_gamma = targets
    density, start, tape = log_gamma(), normal(16, 3), []

    def recording(draw):
        def recorded(*shape, **options):
            tape.append(draw(*shape, **options))
            return tape[-1]

        return recorded

    def replayed(*shape, **options):
        value = tape.pop(0)
        return value[:4] if value.ndim else value

    def run(position):
        kernel = build_full_batch(step_size=0.2)
        if isinstance(kernel, NUTS):
            # Every tree of the same depth, so that the same numbers are asked for.
            kernel.max_tree_depth = 2
        source = generator()
        state, seen = kernel.init(position, density, source), []
        for _ in range(6):
            state, info = kernel.step(state, density, source)
            seen.append(torch.cat([state.position, info.stats["acceptance_rate"][:, None]], 1))
        return torch.stack(seen)

    with monkeypatch.context() as patch:
        for name in ("rand", "randn"):
            patch.setattr(torch, name, recording(getattr(torch, name)))
        many = run(start)
    with monkeypatch.context() as patch:
        for name in ("rand", "randn"):
            patch.setattr(torch, name, replayed)
        few = run(start[:4])
    assert not tape
    torch.testing.assert_close(few, many[:, :4], rtol=1e-12, atol=1e-12)


def test_gradients_are_counted(build_any, targets):
    gaussian, _ = targets

    class Counting(gaussian):
        calls = 0

        def value_and_grad(self, position):
            self.calls += 1
            return super().value_and_grad(position)

    density = Counting(torch.eye(2))
    kernel = build_any(step_size=0.2)
    state = kernel.init(normal(3, 2), density, generator())
    density.calls = 0
    for _ in range(5):
        calls = density.calls
        state, info = kernel.step(state, density, generator(density.calls + 1))
        assert density.calls - calls == info.gradients
        # The minimal-norm integrator computes two gradients a step, the others one.
        per_step = info.gradients / int(info.stats["n_steps"].max())
        assert per_step == (2 if "MCLMC" in type(kernel).__name__ else 1)


# The target is invariant


@pytest.mark.parametrize("metric", ["unit", "diagonal", "dense"])
@pytest.mark.parametrize("step_size", [0.15, 0.9])
def test_exact_draws_stay_exact(build, targets, metric, step_size):
    """Exact draws, moved ten times: independent, so that plain tests of the law apply.

    Without adaptation and with a step so large that a good part of the proposals is rejected.
    """
    _, log_gamma = targets
    law = scipy.stats.loggamma(log_gamma.shape)
    count, dim = 4000, 3
    start = law.rvs((count, dim), random_state=np.random.default_rng(0))
    # Isokinetic motion has unit speed, where momenta of d dimensions have one of sqrt(d).
    pace = dim**0.5 if isinstance(build(), AdjustedMCLMC) else 1
    kernel = build(step_size=pace * step_size, full_mass=metric == "dense")
    density = log_gamma()
    state = kernel.init(torch.tensor(start), density, generator())
    variance = {
        "unit": torch.ones(dim),
        "diagonal": torch.tensor([0.5, 1.0, 2.5]),
        "dense": torch.tensor([[1.5, 0.7, 0.0], [0.7, 1.0, -0.4], [0.0, -0.4, 2.0]]),
    }[metric]
    state = state._replace(metric=metric_from_variance(variance.double()))
    source, rates = generator(1), []
    for _ in range(10):
        state, info = kernel.step(state, density, source)
        rates.append(float(info.stats["acceptance_rate"].mean()))
    assert np.mean(rates) < 0.97 or step_size < 0.5
    end = state.position.numpy()
    # They have moved: hardly anything is left of where they started.
    assert np.abs(np.corrcoef(start[:, 0], end[:, 0])[0, 1]) < 0.3
    for axis in range(dim):
        assert scipy.stats.kstest(end[:, axis], law.cdf).pvalue > 1e-5
    # Coordinates stay independent of each other.
    correlation = np.corrcoef(end, rowvar=False) - np.eye(dim)
    assert np.abs(correlation).max() < 5 / count**0.5


def check_against_law(values, laws, assert_mean, least_ess):
    """Means, variances and 5 and 95 % quantiles of every coordinate."""
    means = np.array([law.mean() for law in laws])
    variances = np.array([law.var() for law in laws])
    assert_mean(values, means, least_ess=least_ess, what="mean")
    squares = (values - means) ** 2
    assert_mean(squares, variances, least_ess=least_ess / 2, what="variance")
    for level in (0.05, 0.95):
        below = (values <= np.array([law.ppf(level) for law in laws])).astype(float)
        assert_mean(below, level, least_ess=least_ess / 4, what=f"quantile {level}")


@pytest.mark.parametrize("condition", [1e2, 1e4], ids=["1e2", "1e4"])
def test_gaussians_of_large_condition(build, draw, targets, assert_mean, condition):
    gaussian, _ = targets
    variances = torch.logspace(0, np.log10(condition), 6).double()
    start = variances.sqrt() * normal(16, 6)
    density = gaussian(variances.diag())
    values, _, _ = draw(build(), density, start, warmup=150, draws=250)
    laws = [scipy.stats.norm(0, v**0.5) for v in variances.tolist()]
    check_against_law(values, laws, assert_mean, least_ess=400)


def test_asymmetric_target(build, draw, targets, assert_mean):
    """A sign that is wrong somewhere shows on a target that is not symmetric."""
    _, log_gamma = targets
    law = scipy.stats.loggamma(log_gamma.shape)
    start = torch.tensor(law.rvs((16, 4), random_state=np.random.default_rng(1)))
    values, _, _ = draw(build(), log_gamma(), start, warmup=150, draws=300)
    check_against_law(values, [law] * 4, assert_mean, least_ess=400)


def test_dense_mass_matrix_on_a_correlated_gaussian(build, draw, targets, assert_mean):
    gaussian, _ = targets
    deviations = np.array([1.0, 3.0, 0.5, 1.0])
    covariance = 0.99 ** np.abs(np.subtract.outer(range(4), range(4)))
    covariance *= np.outer(deviations, deviations)
    start = torch.tensor(np.linalg.cholesky(covariance) @ normal(4, 16).numpy()).mT
    density = gaussian(covariance)
    values, infos, state = draw(build(full_mass=True), density, start, warmup=200, draws=150)
    laws = [scipy.stats.norm(0, deviation) for deviation in deviations]
    check_against_law(values, laws, assert_mean, least_ess=400)
    products = values[..., :-1] * values[..., 1:]
    expected = covariance[np.arange(3), np.arange(1, 4)]
    assert_mean(products, expected, least_ess=200, what="covariance")
    # The metric has learned the correlation: in its coordinates the target is a sphere.
    root = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(root, np.linalg.solve(root, state.metric.inverse.numpy()).T)
    assert np.abs(np.linalg.eigvalsh(whitened) - 1).max() < 0.5
    # Without it, a diagonal metric would need many more steps: the condition is 400.
    steps = np.mean([info.gradients for info in infos])
    assert steps < 32


# Where it goes wrong


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_walls_are_never_crossed_and_recorded_as_divergences(build, targets, value):
    gaussian, _ = targets

    class Walled(gaussian):
        def value_and_grad(self, position):
            potential, gradient = super().value_and_grad(position)
            outside = position[:, 0] > 1
            gradient = torch.where(outside[:, None], torch.nan, gradient)
            return torch.where(outside, value, potential), gradient

    density = Walled(torch.eye(2))
    kernel = build(step_size=0.4)
    state = kernel.init(normal(64, 2).clamp(max=0.9), density, generator())
    diverging, source = 0, generator()
    for _ in range(20):
        state, info = kernel.step(state, density, source)
        assert bool((state.position[:, 0] <= 1).all())
        assert all(bool(leaf.isfinite().all()) for leaf in _leaves(state))
        assert bool(info.stats.get("energy", torch.zeros(1)).isfinite().all())
        assert bool(info.stats["acceptance_rate"].isfinite().all())
        diverging += int(info.stats["diverging"].sum())
    assert diverging > 10
    # The half-space is explored up to its wall: the law is a normal cut at 1.
    law = scipy.stats.truncnorm(-np.inf, 1)
    assert abs(float(state.position[:, 0].mean()) - law.mean()) < 5 * law.std() / 8


def test_a_step_far_too_large_diverges_and_stays_put(build, targets):
    gaussian, _ = targets
    density = gaussian(torch.eye(2))
    start = normal(8, 2)
    kernel = build(step_size=1000.0)
    state, info = kernel.step(kernel.init(start, density, generator()), density, generator())
    assert bool(info.stats["diverging"].all())
    assert torch.equal(state.position, start)
    assert float(info.stats["acceptance_rate"].max()) < 1e-6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"step_szie": 0.1}, "no option 'step_szie': did you mean 'step_size'"),
        ({"jit_complie": True}, "did you mean 'jit_compile'"),
        ({"zzz": 0.1}, "it knows step_size, "),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"potential_fn": abs}, "cannot take potential_fn"),
    ],
)
def test_options_that_are_wrong_are_named(build_any, options, sentence):
    with pytest.raises(UserError, match=sentence):
        build_any(**options)


def test_acceptance_has_to_be_a_probability(build):
    with pytest.raises(UserError, match=r"target_accept_prob is 1\.0"):
        build(target_accept_prob=1.0)


# HMC


def test_hmc_steps_follow_from_the_trajectory_or_its_number(targets):
    gaussian, _ = targets
    density = gaussian(torch.eye(2))

    def gradients(count=1, **options):
        kernel = HMC(None, **options)
        state = kernel.init(normal(3, 2), density, generator())
        source = generator()
        return [kernel.step(state, density, source)[1].gradients for _ in range(count)]

    assert gradients(step_size=0.1, trajectory_length=1.0) == [10]
    assert gradients(step_size=0.5) == [13]  # 2 pi / 0.5
    assert gradients(step_size=0.1, num_steps=7) == [7]
    assert gradients(step_size=100.0) == [1]
    assert gradients(step_size=1e-6) == [HMC.max_steps]
    fixed = {"step_size": 5e-4, "trajectory_length": 1.0, "adapt_step_size": False}
    assert gradients(**fixed) == [2000]
    jittered = gradients(400, num_steps=20, jitter=0.5)
    assert set(jittered) <= set(range(10, 31))
    assert len(set(jittered)) > 15
    assert np.mean(jittered) == pytest.approx(20, abs=5 * (20**2 / 12 / 400) ** 0.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trajectory_length": 1.0, "num_steps": 3}, "not both"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"trajectory_length": -1.0}, r"trajectory_length is -1\.0"),
        ({"jitter": 1.0}, "jitter is 1.0"),
    ],
)
def test_hmc_settings_out_of_range(options, sentence):
    with pytest.raises(UserError, match=sentence):
        HMC(None, **options)


def test_hmc_rejects_as_metropolis_does(targets):
    """The share of proposals taken is the mean acceptance probability."""
    gaussian, _ = targets
    density = gaussian(torch.eye(20))
    kernel = HMC(None, step_size=1.0, num_steps=5)
    state = kernel.init(normal(5000, 20), density, generator())
    new, info = kernel.step(state, density, generator())
    moved = (new.position != state.position).any(1).double()
    rate = info.stats["acceptance_rate"]
    assert 0.2 < float(rate.mean()) < 0.95
    excess = moved - rate
    assert abs(float(excess.mean())) < 5 * float(excess.std()) / 5000**0.5
    # The energy that is recorded is that of the draw, kinetic part included.
    kinetic = info.stats["energy"] - new.potential
    assert bool((kinetic > 0).all())


# NUTS


def test_nuts_stops_at_its_depth(targets):
    gaussian, _ = targets
    density = gaussian(torch.eye(2))
    for depth in (1, 3):
        kernel = NUTS(None, step_size=1e-3, max_tree_depth=depth)
        _, info = kernel.step(kernel.init(normal(6, 2), density, generator()), density, generator())
        assert bool((info.stats["tree_depth"] == depth).all())
        assert bool((info.stats["n_steps"] == 2**depth - 1).all())
        assert info.gradients == 2**depth - 1
    with pytest.raises(UserError, match="max_tree_depth is 0"):
        NUTS(None, max_tree_depth=0)


def test_nuts_grows_short_trees_while_chains_have_step_sizes_of_their_own(targets):
    """One chain with a tiny step would have all others wait for the whole depth."""
    gaussian, _ = targets
    density = gaussian(torch.eye(2))
    kernel = NUTS(None, step_size=1e-3, max_tree_depth=7)
    state = kernel.init(normal(6, 2), density, generator())
    own = state._replace(step_size=torch.tensor([1e-4, *[0.3] * 5]).double())
    _, info = kernel.step(own, density, generator())
    assert info.gradients == 2**NUTS.first_tree_depth - 1
    assert int(info.stats["n_steps"][0]) == info.gradients
    # Shared step sizes get the depth that was asked for, and a smaller one holds throughout.
    assert kernel.step(state, density, generator())[1].gradients == 2**7 - 1
    kernel.max_tree_depth = 2
    assert kernel.step(own, density, generator())[1].gradients == 3


def test_nuts_goes_half_a_turn(targets):
    """On a standard normal the trajectory turns after about half a period, pi."""
    gaussian, _ = targets
    density = gaussian(torch.eye(50))
    kernel = NUTS(None, step_size=0.05)
    _, info = kernel.step(kernel.init(normal(200, 50), density, generator()), density, generator())
    length = 0.05 * info.stats["n_steps"].double().mean()
    assert np.pi / 2 < float(length) < 2 * np.pi
    depth, steps = info.stats["tree_depth"], info.stats["n_steps"]
    assert bool((steps <= 2**depth - 1).all())
    assert bool((steps >= 2 ** (depth - 1)).all())


def test_turns_inside_a_subtree_are_those_of_the_recursive_definition(targets):
    """The iterative check with its few checkpoints against every balanced subtree in turn."""
    gaussian, _ = targets
    metric = NUTS(None).init(normal(1, 2), gaussian(torch.eye(2)), generator()).metric
    leaves, chains = 32, 300
    drift = normal(1, chains, 2, seed=1)
    momenta = 0.6 * normal(leaves, chains, 2) + drift
    sums = torch.cat([torch.zeros(1, chains, 2), momenta.cumsum(0)])
    checkpoints, total = {}, torch.zeros(chains, 2).double()
    seen = 0
    for leaf in range(leaves):
        total = total + momenta[leaf]
        found = _turned_inside(leaf, momenta[leaf], total, checkpoints, metric)
        expected = torch.zeros(chains, dtype=torch.bool)
        size = 2
        while (leaf + 1) % size == 0:
            first = leaf + 1 - size
            expected |= _is_turning(
                metric, momenta[first], momenta[leaf], sums[leaf + 1] - sums[first]
            )
            size *= 2
        assert torch.equal(found, expected), leaf
        seen += int(expected.sum())
    assert 0 < seen < leaves * chains
    # Phan, Pradhan & Jankowiak: no more checkpoints than the logarithm of the leaves.
    assert len(checkpoints) <= 5
