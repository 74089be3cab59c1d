"""Priors that are independent and identical within a tensor: normal, Laplace, Student-t, Cauchy."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.nn.priors.prior import Scale, check_scale, numeric_scale, whole

__all__ = ["Cauchy", "Laplace", "Normal", "StudentT"]


@dataclass(frozen=True)
class _LocationScale:
    """Location and scale of a prior.

    Attributes
    ----------
    scale : float, "fan_in" or "kaiming"
        The scale itself, or ``1 / sqrt(fan_in)``, or ``sqrt(2 / fan_in)``, where fan_in is the
        number of inputs of the parameter's layer (its bias included).
    gain : float
        Multiplies the scale.
    loc : float
        Where the prior is centred.
    """

    scale: Scale = 1.0
    gain: float = 1.0
    loc: float = 0.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)
        if self.gain <= 0:
            raise UserError(f"prior {type(self).__name__}: gain is {self.gain}, give a number > 0")

    def _loc_scale(self, parameter: Tensor, fan_in: int) -> tuple[Tensor, Tensor]:
        loc = torch.full_like(parameter, self.loc, requires_grad=False)
        return loc, torch.full_like(loc, self.gain * numeric_scale(self.scale, fan_in))


@dataclass(frozen=True)
class Normal(_LocationScale):
    """Independent normal priors; `scale` is the standard deviation.

    Examples
    --------
    >>> Normal(scale="fan_in", gain=2.0)(torch.zeros(3, 16), fan_in=16).base_dist.stddev[0, 0]
    tensor(0.5000)
    """

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        return whole(dist.Normal(*self._loc_scale(parameter, fan_in)), parameter)


@dataclass(frozen=True)
class Laplace(_LocationScale):
    """Independent Laplace priors; `scale` is the mean absolute deviation."""

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        return whole(dist.Laplace(*self._loc_scale(parameter, fan_in)), parameter)


@dataclass(frozen=True)
class Cauchy(_LocationScale):
    """Independent Cauchy priors; half of the mass lies within `scale` of the centre."""

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        return whole(dist.Cauchy(*self._loc_scale(parameter, fan_in)), parameter)


@dataclass(frozen=True)
class StudentT(_LocationScale):
    """Independent Student-t priors with `df` degrees of freedom."""

    df: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.df <= 0:
            raise UserError(f"prior StudentT: df is {self.df}, give a number > 0")

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        loc, scale = self._loc_scale(parameter, fan_in)
        return whole(dist.StudentT(torch.full_like(loc, self.df), loc, scale), parameter)
