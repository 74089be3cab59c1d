"""Which terms of a model belong to its rows: what minibatches and chunks scale, and what not."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.guides.layer_estimator import LayerEstimator
from pyro_bnn.infer.predict import likelihood_kind, predict

ROWS = 60
X = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1) + torch.sin(5 * X[:, 0])
FEW = torch.tensor([0.3, -0.2, 1.4, 0.9], dtype=torch.float64)


def of_several_terms(x, y):
    """Rows, and beside them a penalty, a soft constraint and a small second data set."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    pyro.factor("penalty", -weight.abs().sum())
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)
        pyro.factor("robust", -0.1 * (x @ weight - y).abs())
    pyro.sample("constraint", dist.Normal(weight.sum(), 0.1), obs=x.new_ones(()))
    with pyro.plate("others", len(FEW)):
        pyro.sample("other", dist.Normal(weight[0], 1.0), obs=FEW)


@pytest.fixture(scope="module")
def density():
    return LogDensity(of_several_terms, X, Y)


@pytest.fixture(scope="module")
def position():
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(position, rows):
    def normal(value, mean, deviation):
        return dist.Normal(mean, deviation).log_prob(value)

    means = position @ X[rows].mT
    of_rows = normal(Y[rows], means, 0.5) - 0.1 * (means - Y[rows]).abs()
    beside = -position.abs().sum(1) + normal(torch.ones(2).double(), position.sum(1), 0.1)
    beside = beside + normal(FEW, position[:, :1], 1.0).sum(1)
    return ROWS / len(rows) * of_rows.sum(1) + beside


def test_what_has_no_rows_counts_once(density, position):
    assert density.rows == ROWS
    rows = torch.arange(0, ROWS, 7)
    torch.testing.assert_close(density.log_likelihood(position, rows), by_hand(position, rows))
    torch.testing.assert_close(
        density.log_likelihood(position), by_hand(position, torch.arange(ROWS))
    )


def test_minibatches_average_to_the_whole(density, position):
    whole = density.value_and_grad(position)
    parts = [density.value_and_grad(position, p) for p in torch.randperm(ROWS).split(10)]
    for index in (0, 1):
        average = torch.stack([part[index] for part in parts]).mean(0)
        torch.testing.assert_close(average, whole[index])


@pytest.mark.parametrize("rows", [1, 7, 20])
def test_chunks_add_up_to_the_whole(density, position, rows):
    whole, found = (d.value_and_grad(position) for d in (density, density.chunked(rows)))
    torch.testing.assert_close(found[0], whole[0])
    torch.testing.assert_close(found[1], whole[1])


def test_noise_in_the_layers_counts_them_once_too():
    """Where the guide is a point, its loss is the potential energy, less the entropy."""

    def model(x, y):
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(1, 3), 1.0).to_event(2))
        shift = pyro.sample("shift", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            mean = torch.nn.functional.linear(x, weight).squeeze(-1) + shift
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)
        pyro.sample("constraint", dist.Normal(shift, 0.1), obs=x.new_ones(()))

    density = LogDensity(model, X, Y)
    loc, rows = torch.full((1, 4), 0.2).double(), torch.arange(0, ROWS, 7)[None]
    log_scale = torch.full_like(loc, -30.0)
    estimator = LayerEstimator(density, 1.0, local=True)
    loss, slope, _ = estimator.gradient(loc, log_scale, 1, rows, [torch.Generator()])
    entropy = log_scale.sum() + 2 * (1 + math.log(2 * math.pi))
    potential, gradient = density.value_and_grad(loc, rows)
    torch.testing.assert_close(loss + entropy, potential)
    torch.testing.assert_close(slope, gradient)


def test_what_comes_after_the_rows_is_not_what_is_predicted():
    def model(x, y=None):
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Normal(x @ weight, 0.5), obs=y)
        pyro.factor("penalty", -weight.abs().sum())

    density = LogDensity(model, X, Y)
    assert likelihood_kind(density, X[:5], Y[:5]) == "continuous"
    weight = torch.ones(1, 3, dtype=torch.float64)
    found = predict(density, {"weight": weight}, X[:5], Y[:5])
    torch.testing.assert_close(found.mean, X[:5].sum(1)[None])


def inside_of_the_model():
    weight = pyro.sample("weight", dist.Normal(X.new_zeros(3), 1.0).to_event(1))
    with pyro.plate("data", ROWS):
        pyro.sample("y", dist.Normal(X @ weight, 0.5), obs=Y)


def across(x, y):
    """Observe outputs in rows, and the data in columns."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    with pyro.plate("outputs", 2, dim=-2), pyro.plate("data", len(x), dim=-1):
        pyro.sample("y", dist.Normal((x @ weight).expand(2, -1), 0.5), obs=y.mT)


@pytest.mark.parametrize(
    ("model", "args", "rows"),
    [(inside_of_the_model, (), ROWS), (across, (X, torch.stack([Y, Y], 1)), 2)],
    ids=["closure", "across"],
)
def test_data_that_are_not_given_by_rows_have_no_minibatch(model, args, rows):
    density = LogDensity(model, *args)
    position = torch.zeros(2, 3, dtype=torch.float64)
    assert bool(density.value_and_grad(position)[0].isfinite().all())
    sentence = f"observes {rows} rows, but none of its arguments has as many"
    with pytest.raises(UserError, match=sentence):
        density.value_and_grad(position, torch.arange(rows // 2))
    with pytest.raises(UserError, match=sentence):
        density.chunked(rows // 2).value_and_grad(position)


def test_sites_that_grow_with_many_rows_are_as_long_as_the_data():
    """Errors in variables: the true input of every row is latent."""
    x = torch.linspace(-1, 1, 3000, dtype=torch.float64)

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            true = pyro.sample("true", dist.Normal(x, 0.1))
            pyro.sample("y", dist.Normal(slope * true, 1.0), obs=y)

    density = LogDensity(model, x, 2 * x)
    assert density.dim == 3001
    values = {"slope": torch.ones(1).double(), "true": x[None]}
    expected = (
        dist.Normal(0.0, 1.0).log_prob(values["slope"])
        + dist.Normal(x, 0.1).log_prob(x).sum()
        + dist.Normal(x, 1.0).log_prob(2 * x).sum()
    )
    torch.testing.assert_close(density.potential(values), -expected)
