"""Predictions of each datum against scipy, and the point estimate against its closed form."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer import point_estimate
from pyro_bnn.infer.point_estimate import maximum_a_posteriori
from pyro_bnn.infer.predict import likelihood_kind, predict
from pyro_bnn.nn import Normal, lift

ROWS, DRAWS = 9, 4


@pytest.fixture
def x():
    return torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0)).double()


def weights(x, *shape):
    return pyro.sample("weight", dist.Normal(x.new_zeros(shape), 1.0).to_event(len(shape)))


def drawn(*shape):
    return torch.randn(DRAWS, *shape, generator=torch.Generator().manual_seed(1)).double()


def observing(likelihood):
    def model(x, y=None):
        weight = weights(x, 2)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", likelihood(x @ weight), obs=y)

    return model


def test_categorical(x):
    def model(x, y=None):
        weight = weights(x, 2, 3)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Categorical(logits=x @ weight), obs=y)

    y = torch.arange(ROWS) % 3
    # Conditioned on other rows than those that are predicted.
    density = LogDensity(model, x[:4], y[:4])
    values = {"weight": drawn(2, 3)}
    assert likelihood_kind(density, x, y) == "categorical"
    found = predict(density, values, x, y)
    expected = scipy.special.softmax((x @ values["weight"]).numpy(), axis=-1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-10)
    at_y = np.log(expected[:, np.arange(ROWS), y.numpy()])
    np.testing.assert_allclose(found.log_predictive, at_y, rtol=1e-10)
    assert found.cdf is None


def test_bernoulli(x):
    y = (torch.arange(ROWS) % 2).double()
    density = LogDensity(observing(lambda f: dist.Bernoulli(logits=f)), x[:4], y[:4])
    values = {"weight": drawn(2)}
    assert likelihood_kind(density, x, y) == "bernoulli"
    found = predict(density, values, x, y)
    expected = scipy.special.expit((values["weight"] @ x.mT).numpy())
    np.testing.assert_allclose(found.mean, expected, rtol=1e-10)
    at_y = scipy.stats.bernoulli.logpmf(y.numpy().astype(int), expected)
    np.testing.assert_allclose(found.log_predictive, at_y, rtol=1e-8)
    assert found.cdf is None


CONTINUOUS = {
    "normal": (lambda f: dist.Normal(f, 0.7), lambda f: scipy.stats.norm(f, 0.7), True),
    "laplace": (lambda f: dist.Laplace(f, 0.7), lambda f: scipy.stats.laplace(f, 0.7), True),
    "gamma": (
        lambda f: dist.Gamma(2.0, f.exp()),
        lambda f: scipy.stats.gamma(2, scale=np.exp(-f)),
        True,
    ),
    # torch has no distribution function of Student's t.
    "student": (lambda f: dist.StudentT(5.0, f), lambda f: scipy.stats.t(5, f), False),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous(x, name):
    likelihood, law, has_cdf = CONTINUOUS[name]
    y = torch.linspace(0.1, 2.0, ROWS).double()
    density = LogDensity(observing(likelihood), x[:4], y[:4])
    values = {"weight": drawn(2)}
    assert likelihood_kind(density, x, y) == "continuous"
    found = predict(density, values, x, y)
    expected = law((values["weight"] @ x.mT).numpy())
    np.testing.assert_allclose(found.log_predictive, expected.logpdf(y.numpy()), rtol=1e-8)
    np.testing.assert_allclose(found.mean, expected.mean(), rtol=1e-8, atol=1e-12)
    if has_cdf:
        np.testing.assert_allclose(found.cdf, expected.cdf(y.numpy()), rtol=1e-5)
    else:
        assert found.cdf is None
    if name == "normal":
        np.testing.assert_allclose(found.sd, np.full((DRAWS, ROWS), 0.7), rtol=1e-12)
    else:
        assert found.sd is None


def test_several_targets_a_row(x):
    def model(x, y=None):
        weight = weights(x, 2, 3)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(x @ weight, 0.5).to_event(1), obs=y)

    y = drawn(ROWS, 3)[0]
    density = LogDensity(model, x, y)
    values = {"weight": drawn(2, 3)}
    found = predict(density, values, x, y)
    expected = scipy.stats.norm((x @ values["weight"]).numpy(), 0.5).logpdf(y.numpy()).sum(-1)
    assert likelihood_kind(density, x, y) == "continuous"
    np.testing.assert_allclose(found.log_predictive, expected, rtol=1e-10)
    assert found.mean.shape == (DRAWS, ROWS, 3)
    assert found.cdf is None


def test_likelihoods_that_are_not_one_term_a_row_are_refused(x):
    y = x[:, 0]

    def together(x, y=None):
        pyro.sample("y", dist.Normal(x @ weights(x, 2), 1.0).to_event(1), obs=y)

    with pytest.raises(UserError, match=r"'y' has a log probability of shape \(\).*to_event|plate"):
        likelihood_kind(LogDensity(together, x, y), x, y)

    def blind(x, y=None):
        weights(x, 2)

    with pytest.raises(UserError, match="observes nothing"):
        likelihood_kind(LogDensity(blind, x, y), x, y)


@pytest.mark.parametrize("held_out", [ROWS, ROWS - 1])
def test_weights_of_each_row_are_refused(x, held_out):
    def inside(x, y=None):
        with pyro.plate("data", x.shape[0]):
            weight = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            return pyro.sample("y", dist.Normal((x * weight).sum(-1), 1.0), obs=y)

    density = LogDensity(inside, x, x[:, 0])
    with pytest.raises(UserError, match=r"'w' is sampled inside of the plate 'data'|not on the te"):
        likelihood_kind(density, x[:held_out], x[:held_out, 0])

    def lifted(x, y=None):
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), 1.0), obs=y)

    bnn = lift(torch.nn.Linear(2, 1).double(), prior=Normal(scale=1.0))
    density = LogDensity(lifted, x, x[:, 0])
    assert likelihood_kind(density, x[:held_out], x[:held_out, 0]) == "continuous"


def test_degrees_of_freedom_that_are_learnt(x):
    def heavy(x, y=None):
        df = pyro.sample("df", dist.Gamma(x.new_tensor(2.0), 0.1))
        location = x @ weights(x, 2)
        with pyro.plate("data", x.shape[0]):
            return pyro.sample("y", dist.StudentT(df, location, 0.7), obs=y)

    y = x[:, 0]
    density = LogDensity(heavy, x, y)
    assert likelihood_kind(density, x, y) == "continuous"
    df = torch.tensor([0.5, 2.0, 3.5, 8.0]).double()
    values = {"df": df, "weight": drawn(2)}
    found = predict(density, values, x, y)
    location = values["weight"] @ x.mT
    law = scipy.stats.t(df[:, None].numpy(), location.numpy(), 0.7)
    np.testing.assert_allclose(found.log_predictive, law.logpdf(y.numpy()), rtol=1e-6)
    np.testing.assert_allclose(found.mean[1:], location[1:], rtol=1e-12)
    assert found.mean[0].isnan().all()  # a distribution of one degree or less has no mean


def test_a_likelihood_without_a_mean_is_refused(x):
    class Odd(dist.Normal):
        @property
        def mean(self):
            raise NotImplementedError

    density = LogDensity(observing(lambda mean: Odd(mean, 1.0)), x, x[:, 0])
    with pytest.raises(UserError, match="'y' is predicted by the mean of its Odd, which has none"):
        likelihood_kind(density, x, x[:, 0])


def test_a_plate_of_the_training_rows_is_refused(x):
    def fixed(x, y=None):
        weight = weights(x, 2)
        with pyro.plate("data", ROWS):
            return pyro.sample("y", dist.Normal(x @ weight, 1.0), obs=y)

    density = LogDensity(fixed, x, x[:, 0])
    with pytest.raises(UserError, match=r"not on the test data, of shapes .*the size x\.shape"):
        likelihood_kind(density, x[1:], x[1:, 0])


def regression_mode(x, y, noise):
    precision = x.mT @ x / noise**2 + torch.eye(2)
    return torch.linalg.solve(precision, x.mT @ y / noise**2)


def test_point_estimate_is_the_mode_of_a_linear_regression(x):
    y = x @ torch.tensor([2.0, -1.0]).double() + 0.1 * drawn(ROWS)[0]
    density = LogDensity(observing(lambda f: dist.Normal(f, 0.3)), x, y)
    found = maximum_a_posteriori(density, torch.Generator().manual_seed(0))
    assert found["weight"].shape == (1, 2)
    expected = regression_mode(x, y, 0.3)
    torch.testing.assert_close(found["weight"][0], expected, rtol=1e-4, atol=1e-4)


def test_point_estimate_of_many_rows_sees_few_in_a_step(monkeypatch):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8192, 2, dtype=torch.float64, generator=source)
    y = x @ x.new_tensor([2.0, -1.0]) + 0.3 * torch.randn(8192, dtype=x.dtype, generator=source)
    density = LogDensity(observing(lambda f: dist.Normal(f, 0.3)), x, y)
    seen = []
    plain = density.value_and_grad

    def watched(position, indices=None):
        seen.append(density.rows if indices is None else len(indices))
        return plain(position, indices)

    monkeypatch.setattr(density, "value_and_grad", watched)
    found = maximum_a_posteriori(density, torch.Generator().manual_seed(0))["weight"]
    assert set(seen) == {256}
    mode = regression_mode(x, y, 0.3)[None]
    above = density.potential({"weight": found}) - density.potential({"weight": mode})
    # A draw of the posterior is at 1 on average, for half the number of its two weights.
    assert 0 <= float(above) < 1


def test_point_estimate_keeps_the_best_of_its_starts():
    """A deep well at 3 and a shallow one at -3: starts to the left of 0 end in the wrong one."""

    def model():
        zero = torch.zeros((), dtype=torch.float64)
        at = pyro.sample("at", dist.Normal(zero, 3.0))
        wells = torch.stack([-2 * (at - 3) ** 2 + 5, -2 * (at + 3) ** 2])
        pyro.factor("wells", torch.logsumexp(wells, 0))

    density = LogDensity(model)
    for seed in range(3):
        found = maximum_a_posteriori(density, torch.Generator().manual_seed(seed))
        # The prior draws it in a little: 4 (3 - a) = a / 9.
        assert float(found["at"]) == pytest.approx(108 / 37, abs=1e-3)


def starts_of_steps(density, monkeypatch):
    """Return a list that gets the number of starts of each gradient to come."""
    seen = []
    plain = density.value_and_grad

    def watched(position, indices=None):
        seen.append(len(position))
        return plain(position, indices)

    monkeypatch.setattr(density, "value_and_grad", watched)
    return seen


def test_point_estimate_of_a_large_network_has_one_start(monkeypatch):
    """Sixteen networks of ten million weights, and Adam's moments of each, would fill memory."""

    def model(y):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(10_000_000), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(weight[: len(y)], 1.0), obs=y)

    density = LogDensity(model, torch.ones(3))
    seen = starts_of_steps(density, monkeypatch)
    maximum_a_posteriori(density, torch.Generator().manual_seed(0), steps=1)
    assert set(seen) == {1}


def test_point_estimate_of_large_rows_takes_few_starts_at_once(monkeypatch, x):
    """As many as 8 of these rows let through, of 16 starts; the best is that of all."""
    monkeypatch.setattr(point_estimate, "_MOST_INPUTS", 9 * ROWS * 3)
    y = x @ torch.tensor([2.0, -1.0]).double()
    density = LogDensity(observing(lambda f: dist.Normal(f, 0.3)), x, y)
    seen = starts_of_steps(density, monkeypatch)
    found = maximum_a_posteriori(density, torch.Generator().manual_seed(0))["weight"]
    assert set(seen) == {8}
    expected = regression_mode(x, y, 0.3)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


def test_point_estimate_is_reproducible_and_in_the_sites_own_space(x):
    def model(x, y=None):
        noise = pyro.sample("noise", dist.HalfNormal(x.new_ones(())))
        mean = x @ weights(x, 2)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Normal(mean, noise), obs=y)

    density = LogDensity(model, x, x[:, 0])
    settings = {"restarts": 2, "steps": 20}
    one, again = (
        maximum_a_posteriori(density, torch.Generator().manual_seed(4), **settings)
        for _ in range(2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert one["noise"].shape == (1,)
    assert float(one["noise"]) > 0
