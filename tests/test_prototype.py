"""Models as Pyro's users write them: what runs there runs here, what cannot is refused by name."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.symmetry import discover
from pyro_bnn.symmetry.prior_score import PriorScore

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


class Regression(PyroModule):
    """A network of Pyro's own: its priors are made before anything here could see them."""

    def __init__(self, hidden):
        super().__init__()
        self.inner = PyroModule[nn.Linear](3, hidden)
        self.inner.weight = PyroSample(dist.Normal(0.0, 1.0).expand([hidden, 3]).to_event(2))
        self.inner.bias = PyroSample(dist.Normal(0.0, 1.0).expand([hidden]).to_event(1))
        self.outer = PyroModule[nn.Linear](hidden, 1)
        self.outer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, hidden]).to_event(2))
        self.outer.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = pyro.deterministic("mean", self.outer(torch.relu(self.inner(x))).squeeze(-1))
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def test_a_pyro_module_is_traced_and_its_symmetries_are_found():
    model = Regression(5)
    density = LogDensity(model, X, X.sum(1))
    position = density.initial_position(4, torch.Generator().manual_seed(0))
    potential, _ = density.value_and_grad(position)
    values = {name: value[0] for name, value in density.constrain(position).items()}
    joint = pyro.poutine.trace(pyro.condition(model, values)).get_trace(X, X.sum(1)).log_prob_sum()
    # The scale is sampled on the whole line, where its density has a Jacobian.
    share = values["sigma"] / 10
    expected = -joint - (10 * share * (1 - share)).log()
    torch.testing.assert_close(potential[0], expected, rtol=1e-4, atol=1e-3)
    group = discover(density)
    assert [space.size for space in group.spaces.values()] == [5]
    values = {name: value.double() for name, value in density.constrain(position).items()}
    score = PriorScore(density)(values)
    torch.testing.assert_close(score["inner.weight"], -values["inner.weight"])
    # Outside, distributions validate as before.
    with pytest.raises(ValueError, match="to be within the support"):
        dist.Bernoulli(0.5).log_prob(torch.tensor(2.0))


def classes(x, y=None):
    weight = pyro.sample("w", dist.Normal(torch.zeros(3, 3), 1.0).to_event(2))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Categorical(logits=x @ weight), obs=y)


def truths(x, y=None):
    weight = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ weight), obs=y)


def rates(x, y=None):
    weight = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ weight).exp()), obs=y)


@pytest.mark.parametrize(
    ("model", "x", "y", "sentence"),
    [
        (classes, X, torch.arange(20) % 3 + 1, "'y' observes labels from 1 to 3 under .* 0 to 2"),
        (classes, X, torch.arange(20) % 3 - 1, "'y' observes labels from -1 to 1 under"),
        (truths, X, torch.arange(20) % 2, r"labels of type int64 under a Bernoulli: give it y\.fl"),
        (truths, X, torch.arange(20) % 2 * 2.0 - 1, r"observes -1 under a Bernoulli, .* Boolean"),
        (rates, X, torch.arange(20) + 0.5, r"observes 0\.5 under a Poisson, .*lower_bound=0"),
        (classes, X.double(), torch.arange(20) % 3, r"one precision: x\.float\(\), or net\.double"),
    ],
    ids=["from-one", "negative", "integers", "signs", "halves", "double"],
)
def test_data_that_do_not_suit_the_likelihood_are_refused(model, x, y, sentence):
    with pytest.raises(UserError, match=sentence):
        LogDensity(model, x, y)


def test_labels_beyond_the_first_rows_are_looked_at():
    y = torch.zeros(3000, dtype=torch.long)
    y[-1] = 3
    with pytest.raises(UserError, match="labels from 0 to 3 under a Categorical of 3 classes"):
        LogDensity(classes, torch.zeros(3000, 3), y)


def on_an_interval(x, y=None):
    top = pyro.sample("top", dist.Uniform(1.0, 3.0))
    below = pyro.sample("below", dist.Uniform(0.0, top))
    pyro.sample("y", dist.Normal(below, 1.0), obs=x[0, 0])


def above_a_bound(x, y=None):
    low = pyro.sample("low", dist.Normal(0.0, 1.0))
    pyro.sample("high", dist.Pareto(low.exp().expand(2), 2.0).to_event(1))
    pyro.sample("y", dist.Normal(low, 1.0), obs=x[0, 0])


def of_a_mixture(x, y=None):
    parts = dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), torch.tensor([0.1, 1.0]))
    weight = pyro.sample("weight", dist.MixtureSameFamily(*parts))
    pyro.sample("y", dist.Normal(weight, 1.0), obs=x[0, 0])


def on_a_sphere(x, y=None):
    axis = pyro.sample("axis", dist.ProjectedNormal(torch.ones(3)))
    pyro.sample("y", dist.Normal(axis.sum(), 1.0), obs=x[0, 0])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (on_an_interval, "support of site 'below' depends on the value of another latent site"),
        (above_a_bound, "support of site 'high' depends on the value of another latent site"),
        (of_a_mixture, r"latent site 'weight' \(MixtureSameFamily\) has the support Mixture"),
        (on_a_sphere, r"latent site 'axis' \(ProjectedNormal\) has the support Sphere"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_supports_that_no_fixed_transform_reaches_are_refused(model, sentence):
    with pytest.raises(UserError, match=sentence):
        LogDensity(model, X, None)


def test_supports_that_are_fixed_are_taken_whatever_they_are():
    def model(x, y=None):
        low = pyro.sample("low", dist.Normal(0.0, 1.0))
        pyro.sample("box", dist.Uniform(torch.tensor([-1.0, 0.0]), 2.0).to_event(1))
        pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
        pyro.sample("turns", dist.LKJCholesky(3, 1.0))
        pyro.sample("above", dist.Pareto(torch.tensor(0.5), 2.0))
        pyro.sample("y", dist.Normal(low, 1.0), obs=x[0, 0])

    density = LogDensity(model, X, None)
    assert density.dim == 1 + 2 + 2 + 3 + 1
    position = density.initial_position(3, torch.Generator().manual_seed(0))
    for name, value in density.constrain(position).items():
        assert bool(density.sites[name].support.check(value).all())
