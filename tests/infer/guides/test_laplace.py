"""Laplace on regressions whose posteriors are known, and its draws against its own precision."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides import Laplace, Training
from pyro_bnn.infer.guides.curvature import fit, prior_precision
from pyro_bnn.infer.guides.network import find_network
from pyro_bnn.nn import Laplace as LaplacePrior
from pyro_bnn.nn import Multivariate, Normal, lift

NOISE, SCALE = 0.5, 1.5
MODE = Training(epochs=300, batch_size=None, learning_rate=0.1)
SHORT = Training(epochs=40, batch_size=None, learning_rate=0.05)


@pytest.fixture(scope="module")
def lifted(line):
    """Return the regression of the fixture as a lifted layer."""
    bnn = lift(nn.Linear(3, 1, bias=False).double(), prior=Normal(scale=SCALE), prefix="net.")

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), NOISE), obs=y)

    return LogDensity(model, line.x, line.y)


def covariance(guide, member=0):
    """Covariance of a member, from draws of unit vectors' worth of noise."""
    state = {name: value[member : member + 1] for name, value in guide.state.items()}
    if "deviation" in state:
        return state["deviation"][0].square().diag()
    dim = state["mean"].shape[1]
    found = torch.zeros(dim, dim, dtype=state["mean"].dtype)
    if "root" in state:
        index = state["index"][0]
        found[index[:, None], index] = state["root"][0] @ state["root"][0].T
        return found
    for name, spectrum in state.items():
        kind, _, start = name.partition(".")
        if kind == "spectrum":
            turns = [state[f"turn{axis}.{start}"][0] for axis in range(spectrum.ndim - 1)]
            turn = turns[0] if len(turns) == 1 else torch.kron(*turns)
            part = slice(int(start), int(start) + spectrum[0].numel())
            found[part, part] = turn @ (1 / spectrum[0].flatten()).diag() @ turn.T
    return found


@pytest.mark.parametrize("structure", ["full", "last-layer", "kron", "hessian"])
def test_of_a_linear_model_it_is_the_exact_posterior(line, lifted, structure):
    guide = Laplace(lifted, MODE, structure=structure).fit(seed=0)
    torch.testing.assert_close(guide.state["mean"][0], line.mean, rtol=1e-4, atol=0)
    torch.testing.assert_close(covariance(guide), line.covariance, rtol=1e-4, atol=0)


def test_written_by_hand_it_takes_the_hessian(line):
    guide = Laplace(line.density, MODE, structure="hessian").fit(seed=0)
    torch.testing.assert_close(covariance(guide), line.covariance, rtol=1e-4, atol=0)
    assert guide.raised == [0]
    drawn = guide.sample_positions(20_000, torch.Generator().manual_seed(0))[0]
    error = (line.covariance.diagonal() / 20_000).sqrt()
    assert ((drawn.mean(0) - line.mean).abs() < 5 * error).all()
    normal = torch.distributions.MultivariateNormal(guide.state["mean"][0], line.covariance)
    found = guide.log_density(drawn[None, :5])[0]
    torch.testing.assert_close(found, normal.log_prob(drawn[:5]), rtol=1e-4, atol=1e-4)


def test_diagonal_is_the_inverse_of_the_diagonal(line, lifted):
    guide = Laplace(lifted, MODE, structure="diag").fit(seed=0)
    expected = (1 / line.precision.diagonal()).diag()
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-4, atol=0)


def test_temperatures(line, lifted):
    tempered = lifted.tempered(likelihood=2.0, posterior=0.3)
    guide = Laplace(tempered, MODE, structure="full").fit(seed=0)
    data = line.x.T @ line.x / NOISE**2
    expected = 0.3 * torch.linalg.inv(data / 2 + torch.eye(3).double() / SCALE**2)
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
def test_draws_and_density_follow_laplace_torchs_own_precision(net, structure):
    guide = Laplace(net.density, SHORT, structure=structure).fit(seed=0)
    network = find_network(net.density)
    point = guide.state["mean"][:1]
    network.place({name: value[0] for name, value in net.density.constrain(point).items()})
    own = prior_precision(net.density, point[0])
    torch.testing.assert_close(own, torch.full_like(own, 1 / SCALE**2))
    fitted = fit(network, net.density, structure, own[:4] if structure == "kron" else own)
    precision = fitted.posterior_precision
    if structure == "kron":
        precision = precision.to_matrix()
    elif structure == "diag":
        precision = precision.diag()
    expected = torch.linalg.inv(precision.detach())
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-6, atol=1e-9)
    drawn = guide.sample_positions(20_000, torch.Generator().manual_seed(0))[0]
    variance = expected.diagonal()
    error = ((variance[:, None] * variance + expected**2) / 20_000).sqrt()
    assert ((drawn.T.cov() - expected).abs() < 5.5 * error).all()
    normal = torch.distributions.MultivariateNormal(point[0], expected)
    found = guide.log_density(drawn[None, :7])[0]
    torch.testing.assert_close(found, normal.log_prob(drawn[:7]))


@pytest.mark.parametrize(("structure", "count"), [("last-layer", 10), ("subnetwork", 6)])
def test_the_other_weights_stay_at_the_mode(net, structure, count):
    guide = Laplace(net.density, SHORT, structure=structure, subnetwork=6).fit(seed=0)
    drawn = guide.sample_positions(30)[0]
    moved = (drawn != guide.state["mean"]).any(0)
    assert int(moved.sum()) == count
    if structure == "last-layer":
        first = net.density.sites["2.weight"].start
        assert moved[first:].all()
    with pytest.raises(UserError, match="has no density"):
        guide.log_density(drawn[None])


def test_the_marginal_likelihood_chooses_the_prior(net):
    chosen = Laplace(net.density, SHORT, structure="diag", prior="marglik").fit(seed=0)
    fixed = Laplace(net.density, SHORT, structure="diag", prior=1 / SCALE**2).fit(seed=0)
    own = Laplace(net.density, SHORT, structure="diag").fit(seed=0)
    torch.testing.assert_close(fixed.state["deviation"], own.state["deviation"])
    assert not torch.allclose(chosen.state["deviation"], own.state["deviation"], rtol=0.05)


def test_each_parameter_has_a_precision_of_its_own(net):
    """At the maximum each is the effective number of its weights over the square of their norm."""
    given = Laplace(net.density, SHORT, structure="diag", prior=1.0).fit(seed=0)
    chosen = Laplace(net.density, SHORT, structure="diag", prior="marglik").fit(seed=0)
    curvature = 1 / given.state["deviation"][0] ** 2 - 1.0
    precision = 1 / chosen.state["deviation"][0] ** 2 - curvature
    for site in net.density.sites.values():
        part = slice(site.start, site.stop)
        own, weights = precision[part], chosen.state["mean"][0, part]
        torch.testing.assert_close(own, own.mean().expand_as(own), rtol=1e-6, atol=1e-6)
        effective = (curvature[part] / (curvature[part] + own)).sum()
        torch.testing.assert_close(effective, own[0] * weights.square().sum(), rtol=0.05, atol=0.02)


def observing(law):
    """Return a model of a lifted layer of three inputs whose likelihood is `law` of its output."""
    bnn = lift(nn.Linear(3, 1, bias=False).double(), prior=Normal(scale=SCALE))

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return law(bnn(x).squeeze(-1), y)

    return model


def normal(mean, y, name="y"):
    return pyro.sample(name, dist.Normal(mean, NOISE), obs=y)


def scaled(mean, y):
    with pyro.poutine.scale(scale=2.0):
        return normal(mean, y)


@pytest.mark.parametrize(
    ("law", "factor", "part"),
    [
        (lambda mean, y: normal(3 * mean, y), 9, "Normal is not .* Normal with it as mean"),
        (scaled, 2, "site 'y' is masked or scaled"),
        (lambda mean, y: normal(mean, y) + normal(mean, y, "again"), 2, "observes 2 sites"),
    ],
    ids=["of-another-mean", "scaled", "twice"],
)
def test_a_likelihood_of_more_than_the_output_is_told_and_has_a_hessian(line, law, factor, part):
    density = LogDensity(observing(law), line.x, line.y)
    with pytest.raises(UserError, match=part):
        Laplace(density, MODE, structure="full").fit(seed=0)
    guide = Laplace(density, MODE, structure="hessian").fit(seed=0)
    data = factor * line.x.T @ line.x / NOISE**2
    expected = torch.linalg.inv(data + torch.eye(3).double() / SCALE**2)
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-4, atol=0)


def test_a_prior_of_correlated_weights(line):
    """The data have little weight, so that the prior counts, least along a diagonal."""
    root = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [0.8, 0.2, 0.4]]).double()
    prior = root @ root.mT
    bnn = lift(nn.Linear(3, 1, bias=False).double(), prior=Multivariate(prior))
    x = 0.01 * line.x

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return normal(bnn(x).squeeze(-1), y)

    density = LogDensity(model, x, line.y)
    with pytest.raises(UserError, match="makes weights depend on each other"):
        Laplace(density, MODE, structure="full").fit(seed=0)
    guide = Laplace(density, MODE, structure="hessian").fit(seed=0)
    expected = torch.linalg.inv(x.T @ x / NOISE**2 + torch.linalg.inv(prior))
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-6, atol=0)
    given = Laplace(density, MODE, structure="full", prior=4.0).fit(seed=0)
    expected = torch.linalg.inv(x.T @ x / NOISE**2 + 4 * torch.eye(3).double())
    torch.testing.assert_close(covariance(given), expected, rtol=1e-6, atol=1e-12)


def test_the_last_of_many_layers(net):
    """Frozen but for the eleventh module, whose name ends as that of the first does."""
    layers = [module for _ in range(5) for module in (nn.Linear(3, 3), nn.Tanh())]
    module = nn.Sequential(*layers, nn.Linear(3, 3)).double()
    bnn = lift(module, prior=Normal(scale=SCALE), freeze=[f"{n}.*" for n in range(0, 10, 2)])

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    guide = Laplace(LogDensity(model, net.x, net.y), SHORT, structure="full").fit(seed=0)
    with torch.no_grad():
        inner = torch.cat([module[:10](net.x), torch.ones(len(net.x), 1).double()], 1)
    weight, bias = guide.state["mean"][0].split([9, 3])
    chances = (inner @ torch.cat([weight.reshape(3, 3), bias[:, None]], 1).mT).softmax(1)
    outer = chances.diag_embed() - chances[:, :, None] * chances[:, None]
    dense = torch.einsum("nop,ni,nj->oipj", outer, inner, inner).flatten(2).flatten(0, 1)
    order = [*(4 * o + i for o in range(3) for i in range(3)), 3, 7, 11]
    precision = dense[order][:, order] + torch.eye(12).double() / SCALE**2
    expected = torch.linalg.inv(precision)
    torch.testing.assert_close(covariance(guide), expected, rtol=1e-4, atol=1e-6)


def test_many_rows_are_seen_some_at_a_time():
    rows, seen = 2500, []
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=source).double()
    y = x.sum(1) + NOISE * torch.randn(rows, generator=source).double()
    module = nn.Linear(3, 1, bias=False).double()
    module.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    bnn = lift(module, prior=Normal(scale=SCALE))

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return normal(bnn(2 * x).squeeze(-1), y)

    training = Training(epochs=1, batch_size=500)
    guide = Laplace(LogDensity(model, x, y), training, structure="full").fit(seed=0)
    expected = torch.linalg.inv(4 * x.T @ x / NOISE**2 + torch.eye(3).double() / SCALE**2)
    torch.testing.assert_close(covariance(guide), expected)
    assert max(seen) == 500


def test_what_laplace_torch_cannot_take_is_told(line, net):
    with pytest.raises(
        UserError, match=r"no module of the model .* site 'w' is not covered: .*structure='hessian'"
    ):
        Laplace(line.density, SHORT).fit(seed=0)

    def counts(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Poisson(net.bnn(x)[:, 0].exp()), obs=y)

    density = LogDensity(counts, net.x, net.y.double())
    with pytest.raises(UserError, match="the likelihood Poisson is not a Categorical"):
        Laplace(density, SHORT).fit(seed=0)
    flat = lift(nn.Linear(3, 2).double(), prior=LaplacePrior())

    def peaked(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=flat(x)), obs=y)

    density = LogDensity(peaked, net.x, net.y)
    with pytest.raises(UserError, match="prior has no curvature"):
        Laplace(density, SHORT).fit(seed=0)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_without_kronecker_factors_is_named_before_the_training(net, training):
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    normed.double().train(training)

    def density(**options):
        bnn = lift(normed, prior=Normal(scale=1.0), **options)

        def model(x, y=None):
            with pyro.plate("data", len(x)):
                return pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

        return LogDensity(model, net.x, net.y)

    part = r"layer '1' \(BatchNorm1d\) has no Kronecker factors.*weight and bias to freeze="
    guide = Laplace(density(), SHORT)
    with pytest.raises(UserError, match=part):
        guide.fit(seed=0)
    assert guide.gradients == 0
    frozen = Laplace(density(freeze=["1.*"]), SHORT).fit(seed=0)
    position = frozen.sample_positions(3)
    gaussian = torch.distributions.MultivariateNormal(
        frozen.state["mean"][0], covariance_matrix=covariance(frozen)
    )
    expected = gaussian.log_prob(position[0])
    torch.testing.assert_close(frozen.log_density(position)[0], expected, rtol=1e-8, atol=0)


def test_a_layer_that_is_frozen_in_part_is_named_before_the_training(net):
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    bnn = lift(module, prior=Normal(scale=1.0), freeze=["*.bias"])

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    guide = Laplace(LogDensity(model, net.x, net.y), SHORT)
    with pytest.raises(UserError, match="layer '0' has a posterior of its weight and a fixed bias"):
        guide.fit(seed=0)
    assert guide.gradients == 0


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"structure": "kfac"}, "'kfac' is unknown; known are 'kron', 'diag'"),
        ({"prior": "evidence"}, "give 'model', 'marglik' or a precision"),
        ({"prior": -1.0}, "give a precision > 0"),
        ({"prior": 1.0, "structure": "hessian"}, "is that of the model"),
        ({"prior": "marglik", "structure": "last-layer"}, "needs all weights"),
    ],
)
def test_options_that_cannot_be_are_named(net, settings, part):
    with pytest.raises(UserError, match=part):
        Laplace(net.density, **settings)


def test_the_linearised_predictive_is_that_of_laplace_torch(net):
    """Means and variances of drawn outputs against its closed form, within 5 standard errors."""
    draws = 4000
    guide = Laplace(net.density, SHORT, structure="full").fit(seed=0)
    mode = guide.state["mean"]
    network = find_network(net.density)
    network.place({name: value[0] for name, value in net.density.constrain(mode).items()})
    fitted = fit(network, net.density, "full", prior_precision(net.density, mode[0]))
    mean, covariance = fitted._glm_predictive_distribution(net.x[:5])
    found = guide.glm_predictive(net.x[:5], draws, torch.Generator().manual_seed(0))
    assert found.shape == (1, draws, 5, 2)
    variance = covariance.diagonal(dim1=1, dim2=2)
    error = (variance / draws).sqrt()
    assert ((found[0].mean(0) - mean).abs() < 5 * error).all()
    assert ((found[0].var(0) / variance - 1).abs() < 5 * (2 / draws) ** 0.5).all()


def test_of_a_linear_model_the_linearised_predictive_is_the_network(line, lifted):
    guide = Laplace(lifted, MODE, structure="kron").fit(seed=0)
    source = torch.Generator().manual_seed(0)
    weights = guide.sample_posterior(3, source)["net.weight"]
    found = guide.glm_predictive(line.x, 3, source.manual_seed(0))
    torch.testing.assert_close(found, line.x @ weights.mT)
