"""ResNet-18 with batch norm, for small images (He et al. 2016)."""

from __future__ import annotations

from torch import nn

__all__ = ["resnet18"]


def resnet18(classes: int = 10) -> nn.Module:
    """Return torchvision's ResNet-18 with a 3x3 stem and no pooling after it.

    That is its form for CIFAR and Tiny ImageNet. Its batch norms are in evaluation mode, of fixed
    statistics; lift it with ``.train()`` to have them trained, a set of statistics a draw.

    Parameters
    ----------
    classes : int
        Outputs.
    """
    from torchvision import models  # seconds and memory that the other networks do not need

    net: nn.Module = models.resnet18(num_classes=classes)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net.eval()
