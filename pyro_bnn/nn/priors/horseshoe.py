"""The horseshoe prior and its regularised form."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.nn.priors.prior import Scale, check_scale, numeric_scale, whole

__all__ = ["Horseshoe"]


@dataclass(frozen=True)
class Horseshoe:
    r"""A sparse prior: most weights are near zero, a few are free (Carvalho et al. 2010).

    Each weight is normal of deviation :math:`\tau \lambda`, where the global
    :math:`\tau \sim C^+(0, \text{scale})` is the site ``{name}.tau`` and the local
    :math:`\lambda \sim C^+(0, 1)` is ``{name}.lambda``. With a `slab`, large weights are held back
    by a normal of that deviation: :math:`\lambda` becomes
    :math:`\lambda c / \sqrt{c^2 + \tau^2 \lambda^2}`, the regularised horseshoe with a fixed slab
    (Piironen & Vehtari 2017, equation 2.8).

    Attributes
    ----------
    scale : float, "fan_in" or "kaiming"
        Scale of the global deviation.
    slab : float, optional
        Deviation of the slab; without it, the plain horseshoe.

    Notes
    -----
    The conditional form given here has a funnel for every weight. Pyro's
    ``LocScaleReparam(0.0)`` on the site of the weights removes it.
    """

    scale: Scale = 1.0
    slab: float | None = None

    def __post_init__(self) -> None:
        check_scale(self, self.scale)
        if self.slab is not None and self.slab <= 0:
            raise UserError(f"prior Horseshoe: slab is {self.slab}, give a number > 0, or None")

    def conditional(self, name: str, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Sample the global and the local scales and return the prior of the parameter."""
        ones = torch.ones_like(parameter, requires_grad=False)
        width = torch.full_like(ones[(0,) * ones.ndim], numeric_scale(self.scale, fan_in))
        tau = pyro.sample(f"{name}.tau", dist.HalfCauchy(width))
        local = pyro.sample(f"{name}.lambda", whole(dist.HalfCauchy(ones), parameter))
        deviation = tau * local
        if self.slab is not None:
            deviation = self.slab * deviation / (self.slab**2 + deviation**2).sqrt()
        return whole(dist.Normal(torch.zeros_like(ones), deviation), parameter)
