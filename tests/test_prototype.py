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


@pytest.mark.parametrize(
    ("model", "x", "y", "sentence"),
    [
        (classes, X, torch.arange(20) % 3 + 1, "'y' observes labels from 1 to 3 under .* 0 to 2"),
        (classes, X, torch.arange(20) % 3 - 1, "'y' observes labels from -1 to 1 under"),
        (truths, X, torch.arange(20) % 2, r"labels of type int64 under a Bernoulli: give it y\.fl"),
        (classes, X.double(), torch.arange(20) % 3, r"one precision: x\.float\(\), or net\.double"),
    ],
    ids=["from-one", "negative", "integers", "double"],
)
def test_data_that_do_not_suit_the_likelihood_are_refused(model, x, y, sentence):
    with pytest.raises(UserError, match=sentence):
        LogDensity(model, x, y)


def test_labels_beyond_the_first_rows_are_looked_at():
    y = torch.zeros(3000, dtype=torch.long)
    y[-1] = 3
    with pytest.raises(UserError, match="labels from 0 to 3 under a Categorical of 3 classes"):
        LogDensity(classes, torch.zeros(3000, 3), y)
