"""Models whose posteriors are known, and every guide of the package."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.nn import Normal, lift

NOISE, SCALE = 0.5, 1.5


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


class Line:
    """Bayesian linear regression with its exact posterior, in float64."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        mixing = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 1.0]])
        self.x = (torch.randn(40, 3, generator=generator) @ mixing).double()
        noise = NOISE * torch.randn(40, generator=generator).double()
        self.y = self.x @ torch.tensor([1.0, -2.0, 0.5]).double() + noise
        self.precision = self.x.T @ self.x / NOISE**2 + torch.eye(3).double() / SCALE**2
        self.covariance = torch.linalg.inv(self.precision)
        self.mean = self.covariance @ self.x.T @ self.y / NOISE**2
        # One for all tests: its gradients are traced once.
        self.density = LogDensity(self.model, self.x, self.y)

    @staticmethod
    def model(x, y=None):
        """Sample the weights, then the targets."""
        w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), SCALE).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w, NOISE), obs=y)


@pytest.fixture(scope="session")
def line():
    """Return the regression."""
    return Line()


class Net:
    """A lifted 3-4-2 classifier in float64."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(24, 3, generator=generator).double()
        self.y = (self.x[:, 0] + self.x[:, 1] ** 2 > 0.5).long()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
        self.bnn = lift(self.net, prior=Normal(scale=SCALE))
        self.single = lift(copy.deepcopy(self.net).float(), prior=Normal(scale=SCALE))
        self.density = LogDensity(self.model, self.x, self.y)

    def model(self, x, y=None):
        """Sample the network's weights, then the labels."""
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=self.bnn(x)), obs=y)

    def float_model(self, x, y=None):
        """Do the same in float32."""
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=self.single(x)), obs=y)


@pytest.fixture(scope="session")
def net():
    """Return the classifier."""
    return Net()
