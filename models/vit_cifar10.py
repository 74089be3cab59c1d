"""CIFAR-10: a small vision transformer with normal priors of deviation 1 / sqrt(fan-in)."""

from pyro_bnn.datasets import cifar10
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import small_vit

bnn = lift(small_vit(), prior=Normal(scale="fan_in"))


def model(x, y=None):
    """Sample the network's weights, then the classes."""
    return categorical(bnn(x), y)


def data(root=None):
    """Split 50,000 / 10,000; SVHN is elsewhere."""
    return cifar10(root)
