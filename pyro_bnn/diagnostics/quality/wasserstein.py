"""Sliced Wasserstein distance, accumulated over blocks of weights.

Bonneel, Rabin, Peyré and Pfister (2015): the distance of the projections on a random direction,
averaged over directions. Projections are sums over weights, so that draws pass by in blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

PROJECTIONS = 200


class SlicedWasserstein:
    """Two samples of equal size, projected on the same random directions of the unit sphere.

    Parameters
    ----------
    projections
        Number of directions.
    generator
        On the device of the draws.
    """

    def __init__(
        self, projections: int = PROJECTIONS, generator: torch.Generator | None = None
    ) -> None:
        self.projections = projections
        self.generator = generator
        self._x: Tensor | None = None
        self._y: Tensor | None = None
        self._lengths: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add a block of weights.

        Parameters
        ----------
        x, y
            Draws of shape ``(n, weight)``.
        """
        directions = torch.randn(
            x.shape[1],
            self.projections,
            generator=self.generator,
            device=x.device,
            dtype=torch.float64,
        )
        lengths = directions.square().sum(0)
        here, there = x.double() @ directions, y.double() @ directions
        self._x = here if self._x is None else self._x + here
        self._y = there if self._y is None else self._y + there
        self._lengths = lengths if self._lengths is None else self._lengths + lengths

    def distance(self) -> float:
        """Return the square root of the mean over directions of the squared 2-Wasserstein distance.

        In the units of the weights. Not zero for two samples of one distribution: compare it with
        that of two halves of the reference.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if self._x is None or self._y is None or self._lengths is None:
            raise ValueError("no weights were added")
        gaps = self._x.sort(0).values - self._y.sort(0).values
        return float((gaps.square().mean(0) / self._lengths).mean().sqrt())
