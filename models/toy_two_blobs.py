"""The toy of the study's Figure 1: a 2-2-1 ReLU network and two blobs of 200 points each.

Nine weights with normal priors of deviation 10: next to no weight decay, as in the figure.
"""

import torch

from pyro_bnn import Data, Split
from pyro_bnn.nn import Normal, binary, lift
from pyro_bnn.nn.architectures import mlp

bnn = lift(mlp((2, 2, 1)), prior=Normal(scale=10.0))


def model(x, y=None):
    """Sample the network's weights, then the blob of each point."""
    return binary(bnn(x), y)


def data():
    """Draw normal points about (1, 1) and (-1, -1), of deviation 0.3: 400 to train, 400 to test."""
    return Data(_blobs(0), _blobs(1), name="two blobs")


def _blobs(seed):
    y = torch.arange(400) % 2
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(seed))
    return Split(0.3 * noise + 2.0 * y[:, None] - 1.0, y.float())
