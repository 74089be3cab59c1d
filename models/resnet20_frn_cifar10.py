"""CIFAR-10: ResNet-20 with filter response norm and SiLU (Izmailov et al. 2021).

Normal priors of variance 1/5 on all weights, as there. No batch statistics anywhere, so that the
likelihood is a function of the weights alone.
"""

from pyro_bnn.datasets import cifar10
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import resnet20_frn

bnn = lift(resnet20_frn(), prior=Normal(scale=0.2**0.5))


def model(x, y=None):
    """Sample the network's weights, then the classes."""
    return categorical(bnn(x), y)


def data(root=None):
    """Split 50,000 / 10,000; SVHN is elsewhere."""
    return cifar10(root)
