"""What `lift` asks of a prior, and the scales that priors are given."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, runtime_checkable

import pyro.distributions as dist
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["HierarchicalPrior", "Prior", "Scale", "check_scale", "numeric_scale", "whole"]

Scale = float | Literal["fan_in", "kaiming"]
"""A number; ``"fan_in"``, 1 / sqrt(fan_in); or ``"kaiming"``, sqrt(2 / fan_in) (He et al. 2015)."""


@runtime_checkable
class Prior(Protocol):
    """A distribution for one parameter."""

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return a distribution of event shape ``parameter.shape``."""
        ...


@runtime_checkable
class HierarchicalPrior(Protocol):
    """A distribution for one parameter, given latent sites of the prior's own."""

    def conditional(self, name: str, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Sample the prior's own sites, named ``{name}.*``, and return the parameter's prior."""
        ...


def check_scale(prior: Any, scale: Any) -> None:
    """Refuse what is not a `Scale`.

    Raises
    ------
    UserError
        With the name of the prior.
    """
    if scale in ("fan_in", "kaiming"):
        return
    if not isinstance(scale, int | float) or isinstance(scale, bool) or scale <= 0:
        raise UserError(
            f"prior {type(prior).__name__}: scale is {scale!r}, give a positive number, 'fan_in' "
            "or 'kaiming'"
        )


def numeric_scale(scale: Scale, fan_in: int) -> float:
    """Return the number that a scale is in a layer of `fan_in` inputs."""
    if isinstance(scale, str):
        return math.sqrt((2 if scale == "kaiming" else 1) / fan_in)
    return scale


def whole(prior: Any, parameter: Tensor) -> dist.TorchDistribution:
    """Make the whole parameter one event."""
    event: dist.TorchDistribution = prior.to_event(parameter.ndim)
    return event
