"""Handwritten digits: 1,797 real 8x8 images from scikit-learn, a 64-32-10 ReLU network.

Categorical likelihood, normal priors of deviation 4 / sqrt(fan-in) on all 2,410 weights.
"""

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import nn

from pyro_bnn import Data, Split
from pyro_bnn.corruption import image_corruptions
from pyro_bnn.nn import Normal, lift

net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
bnn = lift(net, prior=Normal(scale="fan_in", gain=4.0))


def model(x, y=None):
    """Sample the network's weights, then the labels."""
    with pyro.plate("data", x.shape[0]):
        return pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)


def data():
    """Split 1,437 / 360; pixels are scaled to [0, 1]. Elsewhere: test images, pixels shuffled."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16.0, dtype=torch.float32)
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    shuffled = x[test][:, torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    return Data(
        Split(x[train], y[train]),
        Split(x[test], y[test]),
        {"shuffled pixels": Split(shuffled, y[test])},
        name="scikit-learn digits",
        corruptions=image_corruptions((8, 8)),
    )
