"""Priors against scipy's densities."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_bnn import UserError
from pyro_bnn.nn import Laplace, Normal, Prior, StudentT

# A prior, and the same law in scipy for a parameter of fan-in 16.
CASES = [
    (Normal(), scipy.stats.norm()),
    (Normal(scale=0.3, loc=1.5), scipy.stats.norm(1.5, 0.3)),
    (Normal(scale="fan_in", gain=2.0), scipy.stats.norm(0, 0.5)),
    (Laplace(scale=2.0, loc=-1.0), scipy.stats.laplace(-1, 2)),
    (Laplace(scale="fan_in"), scipy.stats.laplace(0, 0.25)),
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


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
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
