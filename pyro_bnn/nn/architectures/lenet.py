"""LeNet-5 (LeCun et al. 1998) as it is used today: ReLU, max pooling, a linear last layer."""

from __future__ import annotations

from torch import nn

__all__ = ["lenet5"]


def lenet5(classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Return LeNet-5 for images ``(batch, channels, 28, 28)``.

    Parameters
    ----------
    classes : int
        Outputs.
    channels : int
        Of the images.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
