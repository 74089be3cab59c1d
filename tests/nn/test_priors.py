"""Priors against scipy's densities, alone and inside of a log density."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam
from torch import nn

from pyro_bnn import LogDensity, UserError
from pyro_bnn.nn import (
    Cauchy,
    CorrelatedFilters,
    Hierarchical,
    Horseshoe,
    Laplace,
    Multivariate,
    Normal,
    Prior,
    ScaleMixture,
    StudentT,
    categorical,
    lift,
)

# A prior, and the same law in scipy for a parameter of fan-in 16.
CASES = [
    (Normal(), scipy.stats.norm()),
    (Normal(scale=0.3, loc=1.5), scipy.stats.norm(1.5, 0.3)),
    (Normal(scale="fan_in", gain=2.0), scipy.stats.norm(0, 0.5)),
    (Laplace(scale=2.0, loc=-1.0), scipy.stats.laplace(-1, 2)),
    (Laplace(scale="fan_in"), scipy.stats.laplace(0, 0.25)),
    (Normal(scale="kaiming"), scipy.stats.norm(0, (2 / 16) ** 0.5)),
    (Cauchy(scale=0.4, loc=0.1), scipy.stats.cauchy(0.1, 0.4)),
    (StudentT(), scipy.stats.t(4)),
    (StudentT(scale="fan_in", gain=4.0, df=2.5, loc=0.5), scipy.stats.t(2.5, 0.5, 1.0)),
]


@pytest.mark.parametrize(("prior", "law"), CASES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_probability_is_that_of_scipy(prior, law, dtype):
    parameter = torch.nn.Parameter(torch.zeros(3, 16, dtype=dtype))
    distribution = prior(parameter, fan_in=16)
    value = torch.randn(3, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert distribution.event_shape == (3, 16)
    assert distribution.batch_shape == ()
    found = distribution.log_prob(value)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(float(found), law.logpdf(value.numpy()).sum(), rtol=tolerance)


def test_priors_are_drawn_in_the_dtype_and_without_gradient():
    for prior, _ in CASES:
        assert isinstance(prior, Prior)
        parameter = torch.nn.Parameter(torch.ones(5, dtype=torch.float64))
        draw = prior(parameter, 5).sample()
        assert draw.dtype == torch.float64
        assert draw.shape == (5,)
        assert not draw.requires_grad


def test_scale_mixture_is_the_log_of_the_sum_of_two_normals():
    value = np.linspace(-3, 3, 15).reshape(5, 3)
    prior = ScaleMixture(wide=1.5, narrow="fan_in", weight=0.25)
    found = prior(torch.zeros(5, 3, dtype=torch.float64), 25).log_prob(torch.from_numpy(value))
    two = 0.25 * scipy.stats.norm.pdf(value, 0, 1.5) + 0.75 * scipy.stats.norm.pdf(value, 0, 0.2)
    assert float(found) == pytest.approx(np.log(two).sum(), rel=1e-12)


def test_filters_are_alike_where_they_are_near():
    weight = torch.randn(
        4, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = CorrelatedFilters(scale=0.5, lengthscale=2.0)(weight, 18).log_prob(weight)
    points = np.stack(np.meshgrid(range(3), range(3), indexing="ij"), -1).reshape(9, 2)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    law = scipy.stats.multivariate_normal(np.zeros(9), 0.25 * np.exp(-distance / 2))
    assert float(found) == pytest.approx(law.logpdf(weight.reshape(8, 9).numpy()).sum(), rel=1e-10)


def test_a_covariance_over_a_whole_parameter():
    root = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    covariance = root @ root.mT + torch.eye(6)
    value = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    found = Multivariate(covariance)(value, 3).log_prob(value)
    law = scipy.stats.multivariate_normal(np.zeros(6), covariance.numpy())
    assert float(found) == pytest.approx(law.logpdf(value.flatten().numpy()), rel=1e-10)


def net():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


X = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 1, 1, 0, 1, 0])


def density_of(prior, module=None, x=X):
    bnn = lift(net() if module is None else module, prior=prior)
    return LogDensity(lambda x, y: categorical(bnn(x), y), x, Y)


def normal_logpdf(value, deviation):
    return scipy.stats.norm.logpdf(value.numpy(), 0, np.asarray(deviation)).sum()


def test_one_relevance_an_input():
    prior = {"0.weight": Hierarchical(each="input", hyperprior="half-cauchy", spread=2.0)}
    density = density_of({**prior, "*": Normal()})
    assert density.sites["0.weight.relevance"].shape == (4,)
    values = density.constrain(torch.linspace(-1, 1, density.dim, dtype=torch.float64)[None])
    plain = {name: value[0] for name, value in values.items()}
    relevance = plain.pop("0.weight.relevance")
    expected = scipy.stats.halfcauchy.logpdf(relevance.numpy(), 0, 2.0).sum()
    expected += relevance.log().sum().item()  # of the transform to the half-line
    expected += normal_logpdf(plain.pop("0.weight"), relevance.numpy() * 0.5)
    expected += sum(normal_logpdf(value, 1.0) for value in plain.values())
    found = density.log_prior(torch.linspace(-1, 1, density.dim, dtype=torch.float64)[None])
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("slab", [None, 1.5])
def test_horseshoe_is_normal_given_its_scales(slab):
    trace = poutine.trace(
        lambda: lift(nn.Linear(3, 2).double(), prior=Horseshoe(scale=0.3, slab=slab))(X[:, :3])
    ).get_trace()
    trace.compute_log_prob()
    nodes = trace.nodes
    tau, local = (nodes[f"weight.{name}"]["value"] for name in ("tau", "lambda"))
    assert float(nodes["weight.tau"]["log_prob"]) == pytest.approx(
        scipy.stats.halfcauchy.logpdf(float(tau), 0, 0.3), rel=1e-10
    )
    assert float(nodes["weight.lambda"]["log_prob_sum"]) == pytest.approx(
        scipy.stats.halfcauchy.logpdf(local.numpy()).sum(), rel=1e-10
    )
    deviation = tau * local
    if slab is not None:
        deviation = deviation / torch.sqrt(1 + (deviation / slab) ** 2)
        assert float(deviation.max()) < slab
    weight = nodes["weight"]
    assert float(weight["log_prob_sum"]) == pytest.approx(
        normal_logpdf(weight["value"], deviation.numpy()), rel=1e-10
    )


FAMILIES = [
    Cauchy(),
    ScaleMixture(),
    Hierarchical(),
    Horseshoe(slab=2.0),
    {"0.weight": Multivariate(torch.eye(12)), "*": Hierarchical(hyperprior="half-cauchy")},
]


@pytest.mark.parametrize("prior", FAMILIES, ids=lambda value: repr(value)[:30])
def test_every_family_is_traced_with_its_gradient(prior):
    density = density_of(prior)
    position = density.initial_position(3, torch.Generator().manual_seed(3)).requires_grad_()
    value, gradient = density.value_and_grad(position.detach())
    assert density.gradient_path == "ATen graph, eager"
    expected = torch.autograd.grad(density.potential(position).sum(), position)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(value, density.potential(position).detach())


def test_correlated_filters_in_a_network():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double()
    prior = {"0.weight": CorrelatedFilters(), "*": Normal()}
    image = torch.randn(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    density = density_of(prior, module, image)
    start = density.initial_position(2, torch.Generator().manual_seed(5))
    _, gradient = density.value_and_grad(start)
    assert density.gradient_path == "ATen graph, eager"
    assert gradient.isfinite().all()


def test_pyro_takes_the_funnel_out():
    bnn = lift(net(), prior=Hierarchical())

    def model(x, y):
        return categorical(bnn(x), y)

    centred = {name: LocScaleReparam(0.0) for name in ("0.weight", "2.weight")}
    density = LogDensity(poutine.reparam(model, config=centred), X, Y)
    assert "0.weight_decentered" in density.sites
    assert "0.weight" not in density.sites
    start = density.initial_position(2, torch.Generator().manual_seed(6))
    assert density.value_and_grad(start)[1].isfinite().all()


def test_the_table_says_what_each_parameter_got():
    bnn = lift(net(), prior={"*.bias": Normal(), "0.*": Hierarchical()}, freeze=["2.weight"])
    table = str(bnn).splitlines()
    assert table[0].split() == ["parameter", "shape", "fan-in", "prior"]
    assert re.match(r"0\.weight +3 x 4 +4 +Hierarchical\(", table[1])
    assert re.match(r"0\.bias +3 +4 +Normal\(", table[2])
    assert table[3].endswith("frozen")


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        (Hierarchical(each="input"), r"each='input'\) cannot be that of '0.bias'"),
        (CorrelatedFilters(), r"shape \(3, 4\) has no filter positions"),
        (Multivariate(torch.eye(3)), r"covariance is \(3, 3\).*needs \(12, 12\)"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_priors_that_do_not_fit_a_parameter_say_so(prior, sentence):
    with pytest.raises(UserError, match=sentence):
        lift(net(), prior=prior)(X)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Multivariate(-torch.eye(2)), "Multivariate: .* not positive definite"),
        (lambda: ScaleMixture(weight=1.0), "ScaleMixture: weight is 1.0"),
        (lambda: ScaleMixture(narrow=-1), "ScaleMixture: scale is -1"),
        (lambda: Hierarchical(each="unit"), "each is 'unit'"),
        (lambda: Hierarchical(hyperprior="gamma"), "hyperprior is 'gamma'"),
        (lambda: Hierarchical(spread=0), "spread is 0"),
        (lambda: Horseshoe(slab=0.0), "slab is 0.0"),
        (lambda: CorrelatedFilters(lengthscale=-1.0), "lengthscale is -1.0"),
        (lambda: Normal(scale=True), "Normal: scale is True"),
        (lambda: Normal(scale=0.0), "Normal: scale is 0.0"),
        (lambda: Normal(scale="fan_out"), "Normal: scale is 'fan_out'"),
        (lambda: Laplace(gain=-1.0), "Laplace: gain is -1.0"),
        (lambda: StudentT(df=0.0), "StudentT: df is 0.0"),
        (lambda: StudentT(scale=-2.0), "StudentT: scale is -2.0"),
    ],
)
def test_settings_out_of_range_are_named(build, sentence):
    with pytest.raises(UserError, match=sentence):
        build()
