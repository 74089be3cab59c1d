"""Tiny ImageNet: ResNet-18 with a 3x3 stem and 200 classes (Laurent et al. 2024).

Normal priors of deviation 0.32: on 100,000 images, a weight decay of 1e-4. Batch norm has the
statistics of the rows at hand, and every draw keeps running statistics of its own.
"""

from pyro_bnn.datasets import tiny_imagenet
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.nn.architectures import resnet18

bnn = lift(resnet18(classes=200).train(), prior=Normal(scale=0.32))


def model(x, y=None):
    """Sample the network's weights, then the classes."""
    return categorical(bnn(x), y)


def data(root=None):
    """Split 100,000 / 10,000; images are ``(row, 3, 64, 64)``."""
    return tiny_imagenet(root)
