"""Prior-predictive draws against their closed form, and their pictures."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyro_bnn import UserError, lift
from pyro_bnn.diagnostics.plots.prior_predictive import plot_prior_predictive
from pyro_bnn.nn import Normal, binary, categorical, gaussian, prior_predictive

DRAWS = 400


def test_a_linear_model_has_the_variance_of_its_prior():
    bnn = lift(nn.Linear(1, 1), prior={"weight": Normal(scale=2.0), "bias": Normal(scale=0.5)})
    x = torch.tensor([[-1.0], [0.0], [3.0]])
    state = torch.get_rng_state()
    found = prior_predictive(lambda x, y=None: gaussian(bnn(x), y, noise=0.3), x, DRAWS, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    expected = 4 * x[:, 0].square() + 0.25
    error = 5 * (2 / DRAWS) ** 0.5
    assert ((found.mean.var(0) / expected - 1).abs() < error).all()
    assert ((found.y.var(0) / (expected + 0.09) - 1).abs() < error).all()
    picture = plot_prior_predictive(found.mean.double().numpy(), x.double().numpy())
    (axes,) = picture.axes
    assert len(axes.lines) == 30
    # The outer band at x = 3 is 1.645 standard deviations to either side.
    low, high = np.quantile(found.mean[:, 2], [0.05, 0.95])
    assert axes.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(high, rel=1e-6)
    assert low < 0 < high


def test_classes_show_how_certain_the_prior_is():
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    heights = {}
    for scale in (0.1, 30.0):
        bnn = lift(nn.Linear(4, 3), prior=Normal(scale=scale))
        found = prior_predictive(lambda x, y=None, bnn=bnn: categorical(bnn(x), y), x, 50)
        assert found.mean.shape == (50, 10, 3)
        assert found.y.shape == (50, 10)
        torch.testing.assert_close(found.mean.sum(2), torch.ones(50, 10))
        (axes,) = plot_prior_predictive(found.mean.double().numpy()).axes
        heights[scale] = axes.patches[0].get_data().values
    assert heights[30.0][-1] > 0.5 > heights[0.1][-1]


def test_ones_and_wide_inputs():
    bnn = lift(nn.Linear(2, 1), prior=Normal())
    found = prior_predictive(lambda x, y=None: binary(bnn(x), y), torch.randn(6, 2), 5)
    assert found.mean.shape == (5, 6)
    assert ((found.mean > 0) & (found.mean < 1)).all()
    (axes,) = plot_prior_predictive(found.mean.double().numpy()).axes
    assert "predicted mean" in axes.get_xlabel()


def test_what_cannot_be_drawn_is_told():
    def named(x, y=None):
        return pyro.sample("target", pyro.distributions.Normal(x[:, 0], 1.0).to_event(1), obs=y)

    with pytest.raises(UserError, match="no site 'y': give the name of its likelihood"):
        prior_predictive(named, torch.zeros(2, 1))
    assert prior_predictive(named, torch.zeros(2, 1), 3, name="target").y.shape == (3, 2)
    with pytest.raises(UserError, match="num_samples is 0"):
        prior_predictive(named, torch.zeros(2, 1), 0)
