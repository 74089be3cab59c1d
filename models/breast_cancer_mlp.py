"""Breast cancer: 569 biopsies from scikit-learn, a 30-16-1 SiLU network.

Bernoulli likelihood, normal priors of deviation 2 / sqrt(fan-in).
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from pyro_bnn.data import standardised_split
from pyro_bnn.nn import Normal, binary, lift

net = nn.Sequential(nn.Linear(30, 16), nn.SiLU(), nn.Linear(16, 1))
bnn = lift(net, prior=Normal(scale="fan_in", gain=2.0))


def model(x, y=None):
    """Sample the network's weights, then whether each tumour is benign."""
    return binary(bnn(x), y)


def data():
    """Split 455 / 114; inputs are standardised."""
    features, target = load_breast_cancer(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    y = torch.tensor(target, dtype=torch.float32)
    return standardised_split(x, y, name="scikit-learn breast cancer")
