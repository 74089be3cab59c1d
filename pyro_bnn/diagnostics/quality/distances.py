"""Distances between all pairs of draws, accumulated over blocks of weights.

L1 and squared L2 distances are sums over weights: a network of any size passes by in blocks, and
the distances of a whole network are the sums of those of its layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.halving import Halving

_WORK_BYTES = 2**26


@dataclass(frozen=True)
class Distances:
    """Distances between the draws of two samples, pooled.

    Attributes
    ----------
    l1, squared
        L1 and squared L2 distances in float64, shape ``(n + m, n + m)``: the `n` draws of the
        first sample, then the `m` of the second.
    n
        Draws of the first sample.
    """

    l1: Tensor
    squared: Tensor
    n: int

    @staticmethod
    def of(x: Tensor, y: Tensor) -> Distances:
        """Compute the distances between draws.

        Parameters
        ----------
        x, y
            Draws ``(n, weight)`` and ``(m, weight)``, on one device.
        """
        pooled = torch.cat([x, y]).double()
        # About the common mean, the expansion of the square loses no digits to a large offset.
        centred = pooled - pooled.mean(0)
        norms = centred.square().sum(1)
        squared = (norms[:, None] + norms[None] - 2 * centred @ centred.T).clamp_min_(0)
        squared = (squared + squared.T) / 2
        squared.fill_diagonal_(0)
        l1 = torch.empty_like(squared)

        def of_rows(rows: slice) -> None:
            l1[rows] = torch.cdist(pooled[rows], pooled, p=1)

        step = max(1, _WORK_BYTES // (8 * max(1, len(pooled))))
        for _ in Halving(step, "MMD", "draws").run(of_rows, len(pooled)):
            pass
        return Distances(l1, squared, len(x))

    def __add__(self, other: Distances) -> Distances:
        """Return the distances over the weights of both."""
        return Distances(self.l1 + other.l1, self.squared + other.squared, self.n)
