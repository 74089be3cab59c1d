"""UCI regression in the standard layout of 20 splits: two hidden layers of 16 ReLU units.

The environment chooses: PYRO_BNN_UCI names the set, yacht by default; PYRO_BNN_SPLIT the split, 0.
Normal likelihood whose noise is learned, normal priors of deviation sqrt(2 / fan-in).
"""

import os

from pyro_bnn.datasets import uci
from pyro_bnn.nn import Normal, gaussian, lift
from pyro_bnn.nn.architectures import mlp

NAME = os.environ.get("PYRO_BNN_UCI", "yacht")
FEATURES = {
    "bostonHousing": 13,
    "concrete": 8,
    "energy": 8,
    "kin8nm": 8,
    "naval-propulsion-plant": 16,
    "power-plant": 4,
    "protein-tertiary-structure": 9,
    "wine-quality-red": 11,
    "yacht": 6,
}

bnn = lift(mlp((FEATURES[NAME], 16, 16, 1)), prior=Normal(scale="kaiming"))


def model(x, y=None):
    """Sample weights and noise, then the standardised target."""
    return gaussian(bnn(x), y)


def data(root=None):
    """Read the split; inputs and target are standardised by its training rows."""
    return uci(NAME, int(os.environ.get("PYRO_BNN_SPLIT", "0")), root)
