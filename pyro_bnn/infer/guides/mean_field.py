"""Mean-field Gaussian variational inference: Bayes by backprop (Blundell et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.seeds import normal
from pyro_bnn.infer.guides.variational import Variational
from pyro_bnn.logdensity import LogDensity

__all__ = ["MeanField"]


class MeanField(Variational):
    """Independent normal distributions of the unconstrained weights.

    Of a Gaussian posterior with precision matrix P it finds the variances ``1 / P_ii``, which are
    at most the marginal ones.

    Parameters
    ----------
    model, training, initial_scale, kl_weight, particles, init_strategy, fail_above
        As for `Variational`.
    """

    trainable = ("loc", "log_scale")

    def start(self, position: Tensor, density: LogDensity) -> Parameters:
        """Start around a position with the initial scale."""
        return {
            "loc": position,
            "log_scale": torch.full_like(position, math.log(self.initial_scale)),
        }

    def draw(self, state: Parameters, count: int, sources: Sequence[torch.Generator]) -> Tensor:
        """Draw ``loc + scale * e``."""
        noise = normal(sources, (count, state["loc"].shape[1]), state["loc"])
        return state["loc"][:, None] + state["log_scale"].exp()[:, None] * noise

    def log_prob(self, state: Parameters, position: Tensor) -> Tensor:
        """Sum the normal log densities of the weights."""
        log_scale = state["log_scale"][:, None]
        standard = (position - state["loc"][:, None]) * torch.exp(-log_scale)
        terms = 0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)
        return -terms.sum(2)
