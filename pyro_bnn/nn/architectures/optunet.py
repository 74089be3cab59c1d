"""OptuNet: 392 weights that read MNIST (Laurent et al. 2024)."""

from __future__ import annotations

from torch import nn

__all__ = ["optunet"]


def optunet(classes: int = 10) -> nn.Sequential:
    """Return OptuNet for images ``(batch, 1, 28, 28)``.

    Two convolutions without bias, the second in two groups, pooling, and one linear layer. Small
    enough that thousands of them, or long chains over one, fit on a laptop.

    Parameters
    ----------
    classes : int
        Outputs.
    """
    return nn.Sequential(
        nn.Conv2d(1, 2, 4, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Conv2d(2, 10, 5, groups=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, classes),
    )
