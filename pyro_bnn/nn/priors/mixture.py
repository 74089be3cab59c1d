"""The scale mixture of two normals (Blundell et al. 2015, equation 7)."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_bnn.errors import UserError
from pyro_bnn.nn.priors.prior import Scale, check_scale, numeric_scale, whole

__all__ = ["ScaleMixture"]


class _RealMixture(dist.MixtureSameFamily):  # type: ignore[misc]
    """A mixture that says outright that its values are real numbers."""

    support = constraints.real


@dataclass(frozen=True)
class ScaleMixture:
    """Each weight is normal of a wide or of a narrow deviation.

    Attributes
    ----------
    wide, narrow : float, "fan_in" or "kaiming"
        The two standard deviations.
    weight : float
        Probability of the wide one.
    """

    wide: Scale = 1.0
    narrow: Scale = 0.1
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_scale(self, self.wide)
        check_scale(self, self.narrow)
        if not 0 < self.weight < 1:
            raise UserError(f"prior ScaleMixture: weight is {self.weight}, give a number in (0, 1)")

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        pair = (numeric_scale(self.wide, fan_in), numeric_scale(self.narrow, fan_in))
        like = torch.zeros_like(parameter, requires_grad=False)[..., None]
        scales = like + torch.tensor(pair, dtype=like.dtype, device=like.device)
        chances = torch.tensor((self.weight, 1 - self.weight), dtype=like.dtype, device=like.device)
        mixture = _RealMixture(
            dist.Categorical(probs=chances.expand(scales.shape)),
            dist.Normal(torch.zeros_like(scales), scales),
        )
        return whole(mixture, parameter)
