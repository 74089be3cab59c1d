"""Likelihood helpers against scipy."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from pyro import poutine

from pyro_bnn import UserError
from pyro_bnn.nn import (
    binary,
    categorical,
    gaussian,
    heteroscedastic,
    poisson,
    student_t,
)


def traced(likelihood, *args, **kwargs):
    trace = poutine.trace(likelihood).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


@pytest.fixture
def output():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_categorical(output):
    y = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    trace = traced(categorical, output, y)
    expected = scipy.special.log_softmax(output.numpy(), axis=1)[np.arange(7), y.numpy()]
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)
    drawn = categorical(output)
    assert drawn.shape == (7,)
    assert "label" in traced(categorical, output, y, name="label").nodes


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
@pytest.mark.parametrize("column", [False, True])
def test_binary(output, column, dtype):
    logits = output[:, :1] if column else output[:, 0]
    y = torch.tensor([0, 1, 1, 0, 1, 0, 0], dtype=dtype)
    trace = traced(binary, logits, y)
    signs = 2.0 * y.numpy() - 1
    expected = scipy.special.log_expit(signs * output[:, 0].numpy())
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("column", [False, True])
def test_gaussian_of_known_noise(output, column):
    mean, y = output[:, :1] if column else output[:, 0], output[:, 1]
    trace = traced(gaussian, mean, y, noise=0.3)
    expected = scipy.stats.norm.logpdf(y.numpy(), output[:, 0].numpy(), 0.3)
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)
    assert "noise" not in trace.nodes


def test_gaussian_of_learned_noise(output):
    trace = traced(gaussian, output[:, 0], output[:, 1])
    noise = trace.nodes["noise"]["value"]
    assert noise.dtype == torch.float64
    assert float(trace.nodes["noise"]["log_prob"]) == pytest.approx(
        scipy.stats.halfnorm.logpdf(float(noise)), rel=1e-6
    )
    expected = scipy.stats.norm.logpdf(output[:, 1].numpy(), output[:, 0].numpy(), float(noise))
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)
    own = traced(gaussian, output[:, 0], output[:, 1], noise=dist.Gamma(3.0, 1.0))
    assert isinstance(own.nodes["noise"]["fn"], dist.Gamma)


def test_noise_that_the_network_gives(output):
    trace = traced(heteroscedastic, output[:, :2], output[:, 2])
    mean, log_deviation, y = output.numpy().T
    expected = scipy.stats.norm.logpdf(y, mean, np.exp(log_deviation))
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)
    with pytest.raises(UserError, match=r"two outputs.*gives \(7, 3\)"):
        heteroscedastic(output, output[:, 0])


def test_student_t(output):
    trace = traced(student_t, output[:, :1], output[:, 1], df=3.0, noise=0.5)
    expected = scipy.stats.t.logpdf(output[:, 1].numpy(), 3, output[:, 0].numpy(), 0.5)
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-12)
    assert "noise" in traced(student_t, output[:, 0], output[:, 1]).nodes
    with pytest.raises(UserError, match="df is 0"):
        student_t(output[:, 0], output[:, 1], df=0)


def test_poisson(output):
    y = torch.tensor([0, 3, 1, 7, 2, 0, 4])
    trace = traced(poisson, output[:, :1], y)
    expected = scipy.stats.poisson.logpmf(y.numpy(), np.exp(output[:, 0].numpy()))
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-10)


ONE_OUTPUT = [binary, gaussian, student_t, poisson]


@pytest.mark.parametrize("likelihood", [categorical, *ONE_OUTPUT])
def test_rows_that_disagree_name_both_shapes(likelihood, output):
    result = output if likelihood is categorical else output[:, :1]
    with pytest.raises(UserError, match=r"observes \(6,\).*output is \(7, .*rows"):
        likelihood(result, torch.zeros(6))


@pytest.mark.parametrize("likelihood", [categorical, *ONE_OUTPUT])
def test_a_column_of_targets_is_refused_instead_of_broadcast(likelihood, output):
    result = output if likelihood is categorical else output[:, :1]
    with pytest.raises(UserError, match=r"observes \(7, 1\).*\(7,\)"):
        likelihood(result, torch.zeros(7, 1))


@pytest.mark.parametrize("likelihood", ONE_OUTPUT)
def test_several_outputs_a_row_are_refused(likelihood, output):
    with pytest.raises(UserError, match=r"site 'y' needs one output .* gives \(7, 3\)"):
        likelihood(output, torch.zeros(7))
