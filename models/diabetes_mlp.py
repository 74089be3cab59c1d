"""Diabetes progression: 442 patients from scikit-learn, a 10-16-16-1 tanh network.

Normal likelihood whose noise is learned, normal priors of deviation 1 / sqrt(fan-in).
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn

from pyro_bnn.data import standardised_split
from pyro_bnn.nn import Normal, gaussian, lift

net = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
bnn = lift(net, prior=Normal(scale="fan_in"))


def model(x, y=None):
    """Sample weights and noise, then the standardised disease progression."""
    return gaussian(bnn(x), y)


def data():
    """Split 354 / 88; inputs and target are standardised."""
    features, target = load_diabetes(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    y = torch.tensor(target, dtype=torch.float32)
    return standardised_split(x, y, standardise_y=True, name="scikit-learn diabetes")
