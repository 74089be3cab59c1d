"""Gaussian variational inference with a covariance of low rank plus diagonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.gaussian import draw_low_rank, log_prob_low_rank
from pyro_bnn.infer.guides.training import Training
from pyro_bnn.infer.guides.variational import Variational
from pyro_bnn.logdensity import LogDensity

__all__ = ["LowRank"]

_GOLDEN = (math.sqrt(5) - 1) / 2


class LowRank(Variational):
    """A normal distribution of covariance ``diag(scale**2) + F' F`` (Ong et al. 2018).

    Parameters
    ----------
    model, training, initial_scale, kl_weight, particles, init_strategy, fail_above
        As for `Variational`.
    rank : int
        Rows of F.

    Raises
    ------
    UserError
        If the rank is below 1.
    """

    trainable = ("loc", "log_scale", "factor")

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        training: Training | None = None,
        *,
        rank: int = 10,
        initial_scale: float = 0.05,
        kl_weight: float = 1.0,
        particles: int = 1,
        init_strategy: Callable[..., Any] | None = None,
        fail_above: float | None = None,
    ) -> None:
        super().__init__(
            model,
            training,
            initial_scale=initial_scale,
            kl_weight=kl_weight,
            particles=particles,
            init_strategy=init_strategy,
            fail_above=fail_above,
        )
        if rank < 1:
            raise UserError(f"LowRank: rank is {rank}, give at least 1")
        self.rank = rank

    def numbers(self, density: LogDensity) -> int:
        """Count the mean, the scales and the factor."""
        return density.dim * (self.rank + 2)

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start around a position with the initial scale, half of the variance in each part."""
        share = self.initial_scale * math.sqrt(0.5)
        # Signs without a pattern: rows that start alike stay alike.
        numbers = torch.arange(1, self.rank * position.shape[1] + 1, device=position.device)
        signs = torch.sign(torch.sin(numbers * (2 * math.pi * _GOLDEN) * numbers.sqrt()))
        factor = signs.to(position.dtype).reshape(1, self.rank, -1) * share / self.rank**0.5
        return {
            "loc": position,
            "log_scale": torch.full_like(position, math.log(share)),
            "factor": factor.expand(len(position), -1, -1),
        }

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw from the Gaussian."""
        return draw_low_rank(
            state["loc"], state["log_scale"].exp(), state["factor"], count, sources
        )

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density of the Gaussian."""
        variance = (2 * state["log_scale"]).exp()
        return log_prob_low_rank(state["loc"], variance, state["factor"], position)
