"""Posterior variances pooled over chains, each chain about its own mean (Welford 1962)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PooledVariance"]


@dataclass
class PooledVariance:
    """Running within-chain variance or covariance of a batch of chains.

    The chains of a Bayesian network sit in different modes, copies of one another under the
    network's symmetries. The spread between them says nothing about the scale on which one chain
    moves, so each chain is centred on its own mean and only the squared deviations are pooled.

    Attributes
    ----------
    mean : Tensor
        Means by chain ``(chain, dim)``.
    squares : Tensor
        Summed squared deviations ``(dim,)``, or their matrix ``(dim, dim)``.
    count : Tensor
        Draws seen of each chain ``(chain,)``; those with a NaN are left out.
    """

    mean: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def like(cls, position: Tensor, *, dense: bool) -> PooledVariance:
        """Start for positions ``(chain, dim)``."""
        dim = position.shape[1]
        squares = position.new_zeros((dim, dim) if dense else (dim,))
        return cls(torch.zeros_like(position), squares, position.new_zeros(len(position)))

    def update(self, position: Tensor) -> None:
        """Take in one draw of every chain, ``(chain, dim)``."""
        seen = ~position.isnan().any(1)
        position = torch.where(seen[:, None], position, self.mean)
        self.count = self.count + seen
        before = position - self.mean
        self.mean = self.mean + before / self.count.clamp(min=1)[:, None]
        after = position - self.mean
        if self.squares.ndim == 1:
            self.squares = self.squares + (before * after).sum(0)
        else:
            self.squares = self.squares + before.mT @ after

    def estimate(self) -> Tensor:
        """Return the variance, shrunk towards 1e-3 times the identity as in Stan."""
        freedom = (self.count - 1).clamp(min=0).sum()
        draws = self.count.sum()
        variance = self.squares * (draws / (draws + 5) / freedom)
        shrinkage = 1e-3 * 5 / (draws + 5)
        if variance.ndim == 1:
            return variance + shrinkage
        identity = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
        return 0.5 * (variance + variance.mT) + shrinkage * identity
