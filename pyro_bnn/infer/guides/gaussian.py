"""Gaussians of low rank plus diagonal, for a batch of members."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from pyro_bnn.infer.guides.seeds import normal

__all__ = ["draw_low_rank", "log_prob_low_rank"]


def draw_low_rank(
    mean: Tensor,
    deviation: Tensor,
    factor: Tensor,
    count: int,
    sources: Sequence[torch.Generator],
) -> Tensor:
    """Draw ``mean + deviation * e1 + e2 @ factor``, with e1 and e2 standard normal.

    Parameters
    ----------
    mean, deviation : Tensor
        ``(member, dim)``.
    factor : Tensor
        ``(member, rank, dim)``.
    count : int
        Draws of each member.
    sources : sequence of torch.Generator
        One a member.

    Returns
    -------
    Tensor
        ``(member, draw, dim)``.
    """
    dim, rank = mean.shape[1], factor.shape[1]
    noise = normal(sources, (count, dim + rank), mean)
    along, across = noise.split([dim, rank], dim=2)
    position: Tensor = mean[:, None] + deviation[:, None] * along + across @ factor
    return position


def log_prob_low_rank(mean: Tensor, variance: Tensor, factor: Tensor, position: Tensor) -> Tensor:
    """Log density ``(member, draw)`` of positions ``(member, draw, dim)``.

    The covariance is ``diag(variance) + factor' factor``; shapes as in `draw_low_rank`.
    """
    normals = LowRankMultivariateNormal(
        mean[:, None], factor.mT[:, None], variance[:, None], validate_args=False
    )
    log_prob: Tensor = normals.log_prob(position)
    return log_prob
