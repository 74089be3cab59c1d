"""MNIST: LeNet-5, 61,706 weights, with normal priors of deviation sqrt(2 / fan-in)."""

from pyro_bnn.datasets import mnist
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import lenet5

bnn = lift(lenet5(), prior=Normal(scale="kaiming"))


def model(x, y=None):
    """Sample the network's weights, then the digits."""
    return categorical(bnn(x), y)


def data(root=None):
    """Split as MNIST comes; FashionMNIST is elsewhere."""
    return mnist(root)
