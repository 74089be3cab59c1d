"""CIFAR-10: ResNet-18 with a 3x3 stem, 11 million weights (He et al. 2016; Laurent et al. 2024).

Normal priors of deviation 0.2: on 50,000 images, a weight decay of 5e-4. Batch norm has the
statistics of the rows at hand, and every draw keeps running statistics of its own.
"""

from pyro_bnn.datasets import cifar10
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import resnet18

bnn = lift(resnet18(classes=10).train(), prior=Normal(scale=0.2))


def model(x, y=None):
    """Sample the network's weights, then the classes."""
    return categorical(bnn(x), y)


def data(root=None):
    """Split 50,000 / 10,000; SVHN is elsewhere."""
    return cifar10(root)
