"""ResNet-20 with filter response norm and SiLU (Izmailov et al. 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_bnn.nn.layers import FilterResponseNorm2d

__all__ = ["resnet20_frn"]


def resnet20_frn(classes: int = 10, width: int = 16) -> nn.Sequential:
    """Return ResNet-20 for images ``(batch, 3, 32, 32)``: no batch statistics anywhere.

    Parameters
    ----------
    classes : int
        Outputs.
    width : int
        Channels of the first of the three stages; each further one doubles them.
    """
    blocks: list[nn.Module] = []
    channels = width
    for stage in range(3):
        for block in range(3):
            stride = 2 if stage > 0 and block == 0 else 1
            out = width * 2**stage
            blocks.append(_Block(channels, out, stride))
            channels = out
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        FilterResponseNorm2d(width),
        nn.SiLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = FilterResponseNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = FilterResponseNorm2d(outputs)
        self.activation = nn.SiLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), FilterResponseNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.activation(self.norm1(self.conv1(x)))
        out: Tensor = self.activation(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out
