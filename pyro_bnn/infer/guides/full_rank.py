"""Gaussian variational inference with a full covariance matrix, for small networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.seeds import normal
from pyro_bnn.infer.guides.variational import Variational
from pyro_bnn.logdensity import LogDensity

__all__ = ["FullRank"]

_LARGEST = 2000


class FullRank(Variational):
    """A normal distribution of covariance ``L L'``, L lower triangular.

    Parameters
    ----------
    model, training, initial_scale, kl_weight, particles, init_strategy, fail_above
        As for `Variational`.

    Raises
    ------
    UserError
        In `fit`, if the network has more than 2,000 weights.
    """

    trainable = ("loc", "log_diagonal", "below")

    def numbers(self, density: LogDensity) -> int:
        """Count the mean and the triangle."""
        return density.dim * (density.dim + 2)

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start around a position with the initial scale, uncorrelated."""
        members, dim = position.shape
        if dim > _LARGEST:
            raise UserError(
                f"the full covariance of this network has {dim:,} x {dim:,} numbers: take "
                f"LowRank, or a network of at most {_LARGEST:,} weights"
            )
        return {
            "loc": position,
            "log_diagonal": torch.full_like(position, math.log(self.initial_scale)),
            "below": position.new_zeros(members, dim, dim),
        }

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw ``loc + L e``."""
        noise = normal(sources, (count, state["loc"].shape[1]), state["loc"])
        return state["loc"][:, None] + noise @ _triangle(state).mT

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Log density of the Gaussian."""
        centred = position - state["loc"][:, None]
        standard = torch.linalg.solve_triangular(_triangle(state), centred.mT, upper=False)
        constant = 0.5 * math.log(2 * math.pi) * position.shape[2]
        log_scale = state["log_diagonal"].sum(1, keepdim=True)
        log_prob: Tensor = -0.5 * standard.square().sum(1) - log_scale - constant
        return log_prob


def _triangle(state: Parameters) -> Tensor:
    """L ``(member, dim, dim)``."""
    return state["below"].tril(-1) + torch.diag_embed(state["log_diagonal"].exp())
