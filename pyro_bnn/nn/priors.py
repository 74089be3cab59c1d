"""Priors over the parameters of a network, independent and identical within a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["Laplace", "Normal", "Prior", "StudentT"]

Scale = float | Literal["fan_in"]


@runtime_checkable
class Prior(Protocol):
    """What `lift` asks of a prior: a distribution for one parameter."""

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return a distribution of event shape ``parameter.shape``."""
        ...


@dataclass(frozen=True)
class _LocationScale:
    """Scale of a prior, in units of a number or of 1 / sqrt(fan-in).

    Attributes
    ----------
    scale : float or "fan_in"
        The scale itself, or ``"fan_in"`` for ``1 / sqrt(fan_in)``, where fan_in is the number of
        inputs of the parameter's layer (its bias included).
    gain : float
        Multiplies the scale.
    loc : float
        Where the prior is centred.
    """

    scale: Scale = 1.0
    gain: float = 1.0
    loc: float = 0.0

    def __post_init__(self) -> None:
        numeric = isinstance(self.scale, int | float) and self.scale > 0
        if not numeric and self.scale != "fan_in":
            raise UserError(
                f"prior {type(self).__name__}: scale is {self.scale!r}, give a positive number or "
                "'fan_in'"
            )
        if self.gain <= 0:
            raise UserError(f"prior {type(self).__name__}: gain is {self.gain}, give a number > 0")

    def _loc_scale(self, parameter: Tensor, fan_in: int) -> tuple[Tensor, Tensor]:
        width = fan_in**-0.5 if isinstance(self.scale, str) else self.scale
        loc = torch.full_like(parameter, self.loc, requires_grad=False)
        return loc, torch.full_like(loc, self.gain * width)


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
        prior = dist.Normal(*self._loc_scale(parameter, fan_in))
        return _whole(prior, parameter)


@dataclass(frozen=True)
class Laplace(_LocationScale):
    """Independent Laplace priors; `scale` is the mean absolute deviation."""

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter."""
        prior = dist.Laplace(*self._loc_scale(parameter, fan_in))
        return _whole(prior, parameter)


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
        return _whole(dist.StudentT(torch.full_like(loc, self.df), loc, scale), parameter)


def _whole(prior: Any, parameter: Tensor) -> dist.TorchDistribution:
    """Make the whole parameter one event."""
    event: dist.TorchDistribution = prior.to_event(parameter.ndim)
    return event
