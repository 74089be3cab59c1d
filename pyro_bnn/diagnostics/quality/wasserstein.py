"""Sliced Wasserstein distance, accumulated over blocks of weights.

Bonneel, Rabin, Peyré and Pfister (2015): the distance of the projections on a random direction,
averaged over directions. Projections are sums over weights, so that draws pass by in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PROJECTIONS = 200


@dataclass(frozen=True)
class SlicedWasserstein:
    """Two samples of equal size, projected on the same random directions.

    Attributes
    ----------
    x, y
        Projections in float64, shape ``(n, projection)``.
    lengths
        Squared lengths of the directions, ``(projection,)``.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor

    @staticmethod
    def of(
        x: Tensor,
        y: Tensor,
        projections: int = PROJECTIONS,
        generator: torch.Generator | None = None,
    ) -> SlicedWasserstein:
        """Project a block of weights.

        Parameters
        ----------
        x, y
            Draws of shape ``(n, weight)``.
        projections
            Number of directions.
        generator
            On the device of the draws.
        """
        directions = torch.randn(
            x.shape[1], projections, generator=generator, device=x.device, dtype=torch.float64
        )
        lengths = directions.square().sum(0)
        return SlicedWasserstein(x.double() @ directions, y.double() @ directions, lengths)

    def __add__(self, other: SlicedWasserstein) -> SlicedWasserstein:
        """Return the projections of the weights of both."""
        return SlicedWasserstein(self.x + other.x, self.y + other.y, self.lengths + other.lengths)

    def distance(self) -> float:
        """Return the square root of the mean over directions of the squared 2-Wasserstein distance.

        In the units of the weights. Not zero for two samples of one distribution: compare it with
        that of two halves of the reference.
        """
        gaps = self.x.sort(0).values - self.y.sort(0).values
        return float((gaps.square().mean(0) / self.lengths).mean().sqrt())
