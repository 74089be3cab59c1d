"""The batched log density against Pyro's own, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_sample, init_to_value
from pyro.infer.mcmc.util import initialize_model
from pyro.nn import PyroModule, PyroSample
from pyro.ops.integrator import potential_grad
from torch import nn

import pyro_bnn.gradient
import pyro_bnn.logdensity
from pyro_bnn import LogDensity, UserError, lift
from pyro_bnn.gradient import Traced
from pyro_bnn.nn import Laplace, Normal, StudentT, categorical, gaussian

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def regression_data(dtype, rows=60, features=4):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, features))
    y = np.sin(x[:, 0]) + 0.3 * random.normal(size=rows)
    return torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)


def lifted_mlp(dtype):
    x, y = regression_data(dtype)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    bnn = lift(net, prior={"*.bias": StudentT(scale=2.0), "*": Normal(scale="fan_in")})

    def model(x, y=None):
        return categorical(bnn(x), y)

    return model, (x, (y > 0).long() + (y > 0.5).long())


def lifted_cnn(dtype):
    random = np.random.default_rng(1)
    x = torch.tensor(random.normal(size=(12, 1, 8, 8)), dtype=dtype)
    y = torch.tensor(random.integers(3, size=12))
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.GroupNorm(2, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).to(dtype)
    bnn = lift(net, prior=Laplace(scale="fan_in"))

    def model(x, y=None):
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    return model, (x, y)


def by_hand(dtype):
    def model(x, y=None):
        zeros = x.new_zeros
        w1 = pyro.sample("w1", dist.Normal(zeros(4, 6), 1.0).to_event(2))
        b1 = pyro.sample("b1", dist.Normal(zeros(6), 0.5).to_event(1))
        w2 = pyro.sample("w2", dist.Normal(zeros(6), 0.3).to_event(1))
        mean = torch.tanh(x @ w1 + b1) @ w2
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(mean, 0.4), obs=y)

    return model, regression_data(dtype)


def hierarchical(dtype):
    def model(x, y=None):
        one = x.new_ones(())
        hidden = x
        for layer, shape in enumerate([(4, 5), (5, 1)]):
            scale = pyro.sample(f"scale{layer}", dist.HalfCauchy(one))
            weight = dist.Normal(x.new_zeros(shape), scale).to_event(2)
            hidden = torch.tanh(hidden @ pyro.sample(f"w{layer}", weight))
        noise = pyro.sample("noise", dist.HalfNormal(one))
        share = pyro.sample("share", dist.Dirichlet(x.new_ones(3)))
        angle = pyro.sample("angle", dist.Uniform(-2 * one, one))
        mean = hidden.squeeze(-1) * share[0] + share[1] * angle
        pyro.deterministic("mean", mean)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(mean, noise), obs=y)

    return model, regression_data(dtype)


def pyro_module(dtype):
    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.layer = PyroModule[nn.Linear](4, 1)
            self.layer.weight = PyroSample(
                dist.Normal(torch.zeros(1, 4, dtype=dtype), 1.0).to_event(2)
            )
            self.layer.bias = PyroSample(dist.Normal(torch.zeros(1, dtype=dtype), 1.0).to_event(1))

        def forward(self, x, y=None):
            mean = self.layer(x).squeeze(-1)
            with pyro.plate("data", x.shape[0]):
                return pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    return Net(), regression_data(dtype)


def subsampled(dtype, size=15):
    """As `gaussian` on a linear model, but its plate subsamples."""

    def model(x, y, chosen=None, whole=False):
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(x.new_ones(())))
        count = None if whole or chosen is not None else size
        with pyro.plate("data", len(x), subsample_size=count, subsample=chosen) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ weight, noise), obs=y[rows])

    return model, regression_data(dtype)


PYRO_CAN = [lifted_mlp, lifted_cnn, by_hand, hierarchical, pyro_module]


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def pyro_potential(model, args, kwargs, density, position):
    """Pyro's potential and gradient at each row of `position`."""
    _, potential, transforms, _ = initialize_model(model, args, kwargs)
    assert set(transforms) == set(density.sites)
    values, gradients = [], []
    for row in position:
        sites = {name: value[0] for name, value in density.unflatten(row[None]).items()}
        gradient, value = potential_grad(potential, sites)
        values.append(value)
        gradients.append(density.flatten({n: g[None] for n, g in gradient.items()})[0])
    return torch.stack(values).detach(), torch.stack(gradients)


def assert_close(found, expected):
    """Compare to the tolerance of the dtype, relative to the largest entry of each row."""
    size = expected.abs() if expected.ndim == 1 else expected.abs().amax(1, keepdim=True)
    assert found.dtype == expected.dtype
    assert bool(((found - expected).abs() <= TOLERANCE[found.dtype] * size).all())


def some_positions(density, count=3):
    """Positions in the bulk of the prior and off it, for tests that any position may serve."""
    noise = torch.randn(count, density.dim, generator=torch.Generator().manual_seed(1))
    return (0.5 * noise).to(density.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("build", PYRO_CAN, ids=lambda build: build.__name__)
def test_potential_and_gradient_equal_those_of_pyro(build, dtype):
    model, args = build(dtype)
    density = LogDensity(model, *args)
    position = some_positions(density)
    expected_value, expected_gradient = pyro_potential(model, args, {}, density, position)
    value, gradient = density.value_and_grad(position)
    assert density.gradient_path.startswith("ATen graph")
    assert value.shape == (3,)
    assert gradient.shape == position.shape
    assert value.dtype == gradient.dtype == dtype
    assert_close(value, expected_value)
    assert_close(gradient, expected_gradient)
    assert_close(density.potential(position), expected_value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_subsampled_plate_is_read_whole_without_indices(dtype):
    model, args = subsampled(dtype)
    density = LogDensity(model, *args)
    position = some_positions(density)
    value, gradient = density.value_and_grad(position)
    expected_value, expected_gradient = pyro_potential(
        model, args, {"whole": True}, density, position
    )
    assert_close(value, expected_value)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_minibatch_of_a_subsampled_plate_is_the_log_joint_of_a_pyro_trace(dtype):
    model, args = subsampled(dtype)
    density = LogDensity(model, *args)
    position = some_positions(density)
    rows = torch.stack([torch.randperm(60)[:15] for _ in position])
    per_chain = density.value_and_grad(position, rows)
    shared = density.value_and_grad(position, rows[0])
    for chain, chosen in enumerate(rows):
        for (value, gradient), indices in ((per_chain, chosen), (shared, rows[0])):
            z = position[chain : chain + 1].clone().requires_grad_(True)
            values = density.constrain(z)
            fixed = poutine.condition(model, {n: v[0] for n, v in values.items()})
            trace = poutine.trace(fixed).get_trace(*args, chosen=indices)
            log_jacobian = density.unflatten(z)["noise"].sum()
            expected = -(trace.log_prob_sum() + log_jacobian)
            expected.backward()
            assert_close(value[chain : chain + 1], expected.detach()[None])
            assert_close(gradient[chain : chain + 1], z.grad)


@pytest.mark.parametrize("build", [by_hand, subsampled], ids=lambda build: build.__name__)
@pytest.mark.parametrize("kind", ["shared", "per chain"])
def test_minibatch_gradients_average_to_the_full_gradient(build, kind):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density)
    parts = torch.randperm(60).reshape(4, 15)
    batches = [part if kind == "shared" else part.expand(3, -1) for part in parts]
    if kind == "per chain":
        # Each chain meets the parts in an order of its own.
        batches = [torch.stack([parts[(k + c) % 4] for c in range(3)]) for k in range(4)]
    found = [density.value_and_grad(position, batch) for batch in batches]
    value, gradient = density.value_and_grad(position)
    assert_close(torch.stack([v for v, _ in found]).mean(0), value)
    assert_close(torch.stack([g for _, g in found]).mean(0), gradient)
    # One part alone is not the whole: the average is no accident.
    assert not torch.allclose(found[0][0], value, rtol=1e-3)
    likelihoods = [density.log_likelihood(position, part) for part in parts]
    assert_close(torch.stack(likelihoods).mean(0), density.log_likelihood(position))


def test_minibatch_likelihood_is_scaled_by_rows_over_batch():
    model, args = by_hand(torch.float64)
    density, small = LogDensity(model, *args), LogDensity(model, args[0][:15], args[1][:15])
    position = some_positions(density)
    rows = torch.arange(15)
    assert_close(density.log_likelihood(position, rows), 4 * small.log_likelihood(position))
    assert_close(
        density.potential(position, rows),
        -density.log_prior(position) - 4 * small.log_likelihood(position),
    )


@pytest.mark.parametrize("build", [*PYRO_CAN, subsampled], ids=lambda build: build.__name__)
def test_prior_and_likelihood_sum_to_the_potential(build):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density)
    total = density.log_prior(position) + density.log_likelihood(position)
    assert_close(-total, density.potential(position))


def test_prior_and_likelihood_are_told_apart():
    """Against scipy: the Jacobian belongs to the prior, the data to the likelihood."""
    y = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)

    def model(y):
        noise = pyro.sample("noise", dist.HalfNormal(2 * torch.ones((), dtype=torch.float64)))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(torch.zeros(3, dtype=torch.float64), noise), obs=y)

    density = LogDensity(model, y)
    z = torch.tensor([[-0.7], [0.4]], dtype=torch.float64)
    noise = z.exp().numpy().ravel()
    prior = scipy.stats.halfnorm.logpdf(noise, scale=2) + z.numpy().ravel()
    likelihood = [scipy.stats.norm.logpdf(y.numpy(), scale=s).sum() for s in noise]
    np.testing.assert_allclose(density.log_prior(z).numpy(), prior, rtol=1e-12)
    np.testing.assert_allclose(density.log_likelihood(z).numpy(), likelihood, rtol=1e-12)


def test_temperatures():
    model, args = hierarchical(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density)
    prior, likelihood = density.log_prior(position), density.log_likelihood(position)
    value, gradient = density.value_and_grad(position)
    tempered = density.tempered(likelihood=4.0, posterior=0.5)
    assert_close(tempered.potential(position), -(prior + likelihood / 4) / 0.5)
    assert_close(tempered.value_and_grad(position)[0], -(prior + likelihood / 4) / 0.5)
    cold = density.tempered(posterior=0.1)
    assert_close(cold.value_and_grad(position)[1], 10 * gradient)
    # The original stays as it was, and log_likelihood is never tempered.
    assert_close(density.value_and_grad(position)[0], value)
    assert_close(tempered.log_likelihood(position), likelihood)
    for bad in ({"likelihood": 0.0}, {"posterior": -1.0}):
        with pytest.raises(UserError, match="positive"):
            density.tempered(**bad)


@pytest.mark.parametrize("build", [*PYRO_CAN, subsampled], ids=lambda build: build.__name__)
def test_flat_and_dict_forms_agree(build):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density)
    sites = density.unflatten(position)
    for name, site in density.sites.items():
        assert sites[name].shape == (3, *site.unconstrained_shape)
    assert torch.equal(density.flatten(sites), position)
    value, gradient = density.value_and_grad(position)
    value_of_dict, gradient_of_dict = density.value_and_grad(sites)
    assert torch.equal(value, value_of_dict)
    assert set(gradient_of_dict) == set(density.sites)
    assert torch.equal(density.flatten(gradient_of_dict), gradient)
    for function in (density.potential, density.log_prior, density.log_likelihood):
        assert torch.equal(function(sites), function(position))


def test_sites_lie_side_by_side_and_have_their_shapes():
    density = LogDensity(hierarchical(torch.float64)[0], *regression_data(torch.float64))
    sites = density.sites
    assert list(sites) == ["scale0", "w0", "scale1", "w1", "noise", "share", "angle"]
    assert sites["w0"].shape == (4, 5)
    assert sites["share"].shape == (3,)
    assert sites["share"].unconstrained_shape == (2,)
    ends = [0, *(site.stop for site in sites.values())]
    assert [site.start for site in sites.values()] == ends[:-1]
    assert density.dim == ends[-1] == 1 + 20 + 1 + 5 + 1 + 2 + 1
    assert density.observed == ("y",)


@pytest.mark.parametrize("build", [hierarchical, lifted_mlp], ids=lambda build: build.__name__)
def test_constrain_and_unconstrain_are_inverse(build):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density, 5)
    values = density.constrain(position)
    for name, site in density.sites.items():
        assert values[name].shape == (5, *site.shape)
        assert bool(site.support.check(values[name]).all())
    torch.testing.assert_close(density.unconstrain(values), position, rtol=1e-9, atol=1e-9)
    # From prior draws, too.
    draws = density.initial_position(4, torch.Generator().manual_seed(3))
    again = density.unconstrain(density.constrain(draws))
    torch.testing.assert_close(again, draws, rtol=1e-6, atol=1e-6)


def test_unconstrain_names_what_does_not_fit():
    model, args = by_hand(torch.float64)
    density = LogDensity(model, *args)
    values = density.constrain(some_positions(density))
    with pytest.raises(UserError, match=r"'w1' has shape \(6, 4\)"):
        density.unconstrain({**values, "w1": values["w1"].mT})
    with pytest.raises(UserError, match="'b1' is missing"):
        density.unconstrain({name: v for name, v in values.items() if name != "b1"})


@pytest.mark.parametrize("build", [hierarchical, lifted_cnn], ids=lambda build: build.__name__)
def test_untraced_path_gives_the_same_numbers(build, monkeypatch):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    position, rows = some_positions(density), torch.arange(6)
    traced = density.value_and_grad(position), density.value_and_grad(position, rows)

    def refuse(*arguments, **keywords):
        raise RuntimeError("no tracing today\nsecond line")

    monkeypatch.setattr(pyro_bnn.gradient, "trace_graph", refuse)
    plain = LogDensity(model, *args)
    untraced = plain.value_and_grad(position), plain.value_and_grad(position, rows)
    assert plain.gradient_path == "vmap, untraced (no tracing today)"
    for (value, gradient), (expected_value, expected_gradient) in zip(
        untraced, traced, strict=True
    ):
        assert_close(value, expected_value)
        assert_close(gradient, expected_gradient)
        assert not gradient.requires_grad


def test_gradients_follow_a_change_of_the_number_of_chains():
    model, args = by_hand(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density, 7)
    value, gradient = density.value_and_grad(position)
    for count in (1, 4):
        v, g = density.value_and_grad(position[:count])
        assert_close(v, value[:count])
        assert_close(g, gradient[:count])


@pytest.mark.parametrize("shared", [False, True])
def test_graphs_see_tensors_of_one_layout(monkeypatch, shared):
    """A compiled graph refuses other strides than those of the tensors that it was made of."""
    seen = []

    def traced(function, *inputs, compiled):
        seen.append(inputs)
        return Traced(lambda *tensors: seen.append(tensors) or function(*tensors), "none")

    monkeypatch.setattr(pyro_bnn.logdensity, "trace_gradient", traced)
    model, args = lifted_mlp(torch.float32)
    density = LogDensity(model, *args)
    rows = torch.arange(5) if shared else torch.arange(5).expand(2, -1)
    position = 0.1 * torch.randn(1, density.dim).expand(2, -1)
    first = density.value_and_grad(position, rows)
    second = density.value_and_grad(position.clone(), rows.clone())
    assert len(seen) == 3
    assert {tuple(t.stride() for t in tensors) for tensors in seen} == {
        ((density.dim, 1), rows.contiguous().stride())
    }
    torch.testing.assert_close(first, second)


def test_deterministic_sites_and_factors_count_once():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        twice = pyro.deterministic("twice", 2 * mu)
        pyro.factor("penalty", -(twice**2))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(twice, 1.0), obs=y)

    y = torch.tensor([1.0, 2.0], dtype=torch.float64)
    density = LogDensity(model, y)
    assert list(density.sites) == ["mu"]
    assert "twice" not in density.observed
    z = torch.tensor([[0.5]], dtype=torch.float64)
    normal = scipy.stats.norm.logpdf
    expected = normal(0.5) + normal(1.0, 1.0) + normal(2.0, 1.0) - 1.0
    assert float(density.potential(z)) == pytest.approx(-expected, rel=1e-12)


def test_masks_and_scales_of_the_likelihood_are_kept():
    y = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)

    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("data", 3), poutine.scale(scale=2.0):
            fn = dist.Normal(mu, 1.0).mask(torch.tensor([True, False, True]))
            pyro.sample("y", fn, obs=y)

    density = LogDensity(model, y)
    z = torch.tensor([[0.25]], dtype=torch.float64)
    expected = 2 * scipy.stats.norm.logpdf([1.0, 5.0], 0.25).sum()
    assert float(density.log_likelihood(z)) == pytest.approx(expected, rel=1e-12)


def test_latent_plates_keep_their_shape():
    """Random effects: a latent site inside of a plate, one value a group."""
    y = torch.randn(5, 3, dtype=torch.float64)

    def model(y):
        width = pyro.sample("width", dist.HalfNormal(torch.ones((), dtype=torch.float64)))
        with pyro.plate("groups", 3, dim=-1):
            effect = pyro.sample("effect", dist.Normal(torch.zeros(3).double(), width))
            with pyro.plate("rows", 5, dim=-2):
                pyro.sample("y", dist.Normal(effect, 1.0), obs=y)

    density = LogDensity(model, y)
    position = some_positions(density)
    expected, gradient = pyro_potential(model, (y,), {}, density, position)
    assert density.sites["effect"].shape == (3,)
    assert_close(density.value_and_grad(position)[0], expected)
    assert_close(density.value_and_grad(position)[1], gradient)


def test_starts_are_prior_draws_of_their_seed():
    model, args = lifted_mlp(torch.float32)
    density = LogDensity(model, *args)
    before = torch.get_rng_state()
    first, again, other = (
        density.initial_position(200, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    weights = density.constrain(first)["0.weight"].flatten()
    # Prior deviation 1/sqrt(4): 6,400 draws, tested at 5 standard errors.
    assert abs(float(weights.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * 6400)
    assert abs(float(weights.mean())) < 5 * 0.5 / math.sqrt(6400)


def test_chains_with_sources_of_their_own_start_as_they_do_alone():
    def model():
        # Half of its draws have no finite density, so that some chains draw more often than others.
        value = pyro.sample("value", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("edge", torch.where(value[0] > 0, 0.0, -torch.inf))

    density = LogDensity(model)

    def sources():
        return [torch.Generator().manual_seed(seed) for seed in range(6)]

    together = density.initial_position(6, sources())
    alone = [density.initial_position(1, source) for source in sources()]
    assert torch.equal(together, torch.cat(alone))
    assert bool((together[:, 0] > 0).all())


def test_starts_follow_a_strategy_and_are_drawn_again_where_not_finite():
    model, args = by_hand(torch.float64)
    density = LogDensity(model, *args)
    chosen = {"b1": torch.full((6,), 2.0, dtype=torch.float64)}
    generator = torch.Generator().manual_seed(0)
    position = density.initial_position(3, generator, strategy=init_to_value(values=chosen))
    assert bool((density.constrain(position)["b1"] == 2.0).all())

    def half(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("positive", torch.where(mu > 0, 0.0, -torch.inf))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    density = LogDensity(half, torch.ones(()))
    position = density.initial_position(40, generator, strategy=init_to_sample)
    assert bool((position > 0).all())
    assert len(position.unique()) == 40


def test_starts_at_which_a_distribution_is_not_defined_are_drawn_again():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("y", dist.Normal(torch.sqrt(mu + 1), 1.0), obs=y)

    pyro.set_rng_seed(1)
    density = LogDensity(model, torch.ones(()))
    position = density.initial_position(40, torch.Generator().manual_seed(0))
    assert bool((position > -1).all())


# Refusals


@pytest.mark.parametrize(
    ("observed", "value"), [(math.nan, "nan"), (math.inf, "-inf")], ids=["NaN", "infinite"]
)
def test_start_that_is_not_finite_names_the_site_and_its_value(observed, value):
    def model(x, y):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 3):
            pyro.sample("target", dist.Normal(x @ weight, 1.0), obs=y)

    y = torch.tensor([0.0, observed, 1.0])
    with pyro.validation_enabled(False):
        density = LogDensity(model, torch.ones(3, 2), y)
    with pytest.raises(UserError, match=rf"start is {value} at site 'target'"):
        density.initial_position(2, torch.Generator().manual_seed(0), attempts=3)


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_start_that_failed_is_the_one_that_is_told(attempts):
    """Not the draw after it, which nobody has tried."""

    def half():
        value = pyro.sample("value", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("edge", torch.where(value > 0, 0.0, -torch.inf))

    density, told = LogDensity(half), []
    for seed in range(12):
        try:
            density.initial_position(2, torch.Generator().manual_seed(seed), attempts=attempts)
        except UserError as error:
            told.append(str(error))
    # Both chains start well with probability 1/4, or 9/16 when they may draw again.
    assert 0 < len(told) < 12
    assert all("-inf at site 'edge'" in sentence for sentence in told)


def test_gradient_that_is_not_finite_at_the_start_is_told():
    def model(y):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(torch.sqrt(0 * mu.sum()), 1.0), obs=y)

    density = LogDensity(model, torch.ones(()))
    with pytest.raises(UserError, match="gradient of the log density"):
        density.initial_position(2, torch.Generator().manual_seed(0), attempts=3)


def observe(mean, y):
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def weight_of(x):
    return pyro.sample("weight", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))


def discrete_latent(x, y):
    observe(x @ weight_of(x) + pyro.sample("component", dist.Bernoulli(0.5)), y)


def no_latent(x, y):
    observe(x.sum(1), y)


def slash(x, y):
    observe(x.sum(1) * pyro.sample("layer/weight", dist.Normal(0.0, 1.0)), y)


def torch_rand(x, y):
    observe(x @ weight_of(x) + torch.rand(len(y)), y)


def python_random(x, y):
    observe(x @ weight_of(x) + float(np.random.default_rng().normal()), y)


def training_dropout(x, y):
    observe(nn.functional.dropout(x @ weight_of(x), 0.5, training=True), y)


def unobserved(x, y):
    weight = weight_of(x)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson((x @ weight).exp()))


def branch(x, y):
    weight = weight_of(x)
    observe(x @ weight if weight[0] > 0 else x.sum(1), y)


def item(x, y):
    observe(x.sum(1) * weight_of(x)[0].item(), y)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (discrete_latent, "latent site 'component' is discrete"),
        (no_latent, "no latent site"),
        (slash, "site 'layer/weight' has a '/' in its name"),
        (torch_rand, "random numbers outside of pyro.sample"),
        (python_random, "random numbers outside of pyro.sample"),
        (training_dropout, "random numbers outside of pyro.sample"),
        (unobserved, "latent site 'y' is discrete"),
        (branch, "branches on the value of a latent site"),
        (item, "branches on the value of a latent site"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_batched_is_refused_by_name(model, sentence):
    x, y = regression_data(torch.float32)
    with pytest.raises(UserError, match=sentence) as caught:
        LogDensity(model, x, y)
    assert "\n" not in str(caught.value)


def test_x_and_y_that_disagree_are_named_by_shape():
    x, y = regression_data(torch.float32)
    model, _ = by_hand(torch.float32)
    with pytest.raises(UserError, match=r"\(60, 4\), \(50,\)"):
        LogDensity(model, x, y[:50])
    bnn = lift(nn.Linear(4, 1), prior=Normal())
    with pytest.raises(UserError, match=r"observes \(50,\).*output is \(60, 1\)") as caught:
        LogDensity(lambda x, y: gaussian(bnn(x), y), x, y[:50])
    # Pyro appends its table of shapes to what a model raises: it is not part of the sentence.
    assert "\n" not in str(caught.value)


def test_targets_that_would_broadcast_against_the_predictions_are_refused():
    """Targets (row, 1) against means (row,) would make a likelihood of row * row terms."""
    model, (x, y) = by_hand(torch.float32)
    with pytest.raises(UserError, match=r"'y'.*\(60, 1\)"):
        LogDensity(model, x, y[:, None])


def test_learning_leaves_no_trace_in_pyro():
    """Neither the random state, nor the plates, nor the validation flag change."""
    model, args = subsampled(torch.float64)
    state = torch.get_rng_state()
    density = LogDensity(model, *args)
    density.value_and_grad(some_positions(density))
    assert torch.equal(torch.get_rng_state(), state)
    trace = poutine.trace(model).get_trace(*args)
    assert trace.nodes["y"]["value"].shape == (15,)
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(torch.zeros(()), torch.tensor(-1.0))


# The graph that symmetry discovery reads, and predictions


@pytest.mark.parametrize("build", [hierarchical, lifted_cnn], ids=lambda build: build.__name__)
def test_likelihood_graph_computes_the_log_likelihood(build):
    model, args = build(torch.float64)
    density = LogDensity(model, *args)
    graph = density.likelihood_graph()
    assert graph.meta["sites"] == tuple(density.sites)
    assert len([n for n in graph.graph.nodes if n.op == "placeholder"]) == len(density.sites)
    position = some_positions(density, 1)
    values = density.constrain(position)
    with torch.no_grad():
        found = graph(*(values[name][0] for name in density.sites))
    assert_close(found.reshape(1), density.log_likelihood(position))


@pytest.mark.parametrize(
    "rows", [20, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (7, 59))]
)
@pytest.mark.parametrize(
    "build", [lifted_mlp, lifted_cnn, hierarchical, subsampled], ids=lambda build: build.__name__
)
def test_chunks_add_up_to_the_whole(build, rows):
    model, args = build(torch.float64)
    whole = LogDensity(model, *args).tempered(likelihood=2.0, posterior=0.5)
    chunked = whole.chunked(rows)
    position = some_positions(whole)
    for found, expected in zip(
        chunked.value_and_grad(position), whole.value_and_grad(position), strict=True
    ):
        assert_close(found, expected)
    assert_close(chunked.potential(position), whole.potential(position))
    assert_close(chunked.log_likelihood(position), whole.log_likelihood(position))
    assert_close(chunked.log_prior(position), whole.log_prior(position))
    batch = torch.arange(5)
    assert_close(
        chunked.value_and_grad(position, batch)[1], whole.value_and_grad(position, batch)[1]
    )


def test_a_chunk_is_all_that_the_model_sees_of_a_mapped_file(tmp_path):
    seen = []

    def model(x, y=None):
        seen.append(len(x))
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)

    numbers = torch.from_file(str(tmp_path / "x"), shared=True, size=3000, dtype=torch.float32)
    numbers.copy_(torch.randn(3000))
    x = numbers.reshape(1000, 3)
    density = LogDensity(model, x, x.sum(1))
    position = some_positions(density)
    expected = density.value_and_grad(position)
    seen.clear()
    for found, one in zip(density.chunked(300).value_and_grad(position), expected, strict=True):
        assert_close(found, one)
    # Three chunks of one shape and what is left.
    assert set(seen) == {300, 100}


def test_chunks_of_no_rows_and_models_without_rows_are_refused():
    model, args = by_hand(torch.float32)
    with pytest.raises(UserError, match="chunks of 0 rows"):
        LogDensity(model, *args).chunked(0)

    def one_number():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(UserError, match="nothing to chunk"):
        LogDensity(one_number).chunked(10)


def test_chunks_as_large_as_the_data_are_the_data():
    model, args = by_hand(torch.float64)
    density = LogDensity(model, *args)
    position = some_positions(density)
    for rows in (60, 10**9):
        whole = density.chunked(rows).value_and_grad(position)
        assert torch.equal(whole[1], density.value_and_grad(position)[1])


def test_what_cannot_be_compiled_runs_as_before_and_says_so(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("no C++ compiler was found: install g++ or clang\nsecond line")

    monkeypatch.setattr(pyro_bnn.gradient, "_compile", refuse)
    model, args = by_hand(torch.float32)
    density = LogDensity(model, *args)
    position = some_positions(density)
    fallback = density.compiled()
    found, expected = fallback.value_and_grad(position), density.value_and_grad(position)
    assert density.gradient_path == "ATen graph, eager"
    assert fallback.gradient_path == (
        "ATen graph, eager; not compiled (no C++ compiler was found: install g++ or clang)"
    )
    assert torch.equal(found[1], expected[1])


def test_a_compiled_gradient_that_differs_is_not_used(monkeypatch):
    def wrong(graph, *inputs):
        return lambda *tensors: (graph(*tensors)[0], graph(*tensors)[1] * 1.01)

    monkeypatch.setattr(pyro_bnn.gradient, "_compile", wrong)
    model, args = by_hand(torch.float32)
    density = LogDensity(model, *args).compiled()
    density.value_and_grad(some_positions(density))
    assert density.gradient_path == (
        "ATen graph, eager; not compiled (the traced graph differs from the model)"
    )


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    import torch._inductor.cpp_builder as builder

    def missing(*arguments):
        raise RuntimeError("none")

    monkeypatch.setattr(builder, "get_cpp_compiler", missing)
    model, args = by_hand(torch.float32)
    density = LogDensity(model, *args).compiled()
    density.value_and_grad(some_positions(density))
    assert "not compiled (no C++ compiler was found" in density.gradient_path


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("build", [by_hand, hierarchical], ids=lambda b: b.__name__)
def test_compiled_gradients_are_those_of_the_graph(build, dtype):
    model, args = build(dtype)
    density = LogDensity(model, *args)
    compiled = density.compiled()
    position = some_positions(density)
    for found, expected in zip(
        compiled.value_and_grad(position), density.value_and_grad(position), strict=True
    ):
        assert_close(found, expected)
    assert compiled.gradient_path == "ATen graph, compiled"
    again = compiled.value_and_grad(position)
    assert torch.equal(again[1], compiled.value_and_grad(position)[1])
