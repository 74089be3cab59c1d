"""Two moons: 500 points in the plane, a 2-10-10-1 tanh network written out by hand.

No `lift`: the weights are sampled one matrix at a time, as in any Pyro model.
"""

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import make_moons

from pyro_bnn import Data, Split


def model(x, y=None):
    """Sample three weight matrices and biases, then the moon of each point."""

    def normal(name, *shape, scale=1.0):
        prior = dist.Normal(torch.zeros(shape, device=x.device), scale)
        return pyro.sample(name, prior.to_event(len(shape)))

    w1, b1 = normal("w1", 2, 10), normal("b1", 10)
    w2, b2 = normal("w2", 10, 10, scale=0.5), normal("b2", 10)
    w3, b3 = normal("w3", 10, 1, scale=0.5), normal("b3", 1)
    hidden = torch.tanh(x @ w1 + b1)
    hidden = torch.tanh(hidden @ w2 + b2)
    logits = (hidden @ w3 + b3).squeeze(-1)
    with pyro.plate("data", x.shape[0]):
        return pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def data():
    """Split 400 / 100, with noise of deviation 0.2."""
    points, moons = make_moons(500, noise=0.2, random_state=0)
    x = torch.tensor(points, dtype=torch.float32)
    y = torch.tensor(moons, dtype=torch.float32)
    return Data(Split(x[:400], y[:400]), Split(x[400:], y[400:]), name="two moons")
