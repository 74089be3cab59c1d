"""Layers that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FilterResponseNorm2d"]


class FilterResponseNorm2d(nn.Module):
    """Filter response normalisation (Singh & Krishnan 2020), without its thresholded activation.

    Each channel of each image is divided by the root of its mean square over the pixels: no batch
    statistics, no buffers, so that it can be lifted as it is.

    Parameters
    ----------
    channels : int
        Channels of the input ``(batch, channels, height, width)``.
    eps : float
        Added to the mean square.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, scale and shift each channel."""
        mean_square = x.square().mean((-2, -1), keepdim=True)
        normal = x * torch.rsqrt(mean_square + self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]
