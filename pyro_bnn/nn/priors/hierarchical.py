"""Normal priors whose deviation is itself unknown, one for a layer or one for an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.nn.priors.prior import Scale, check_scale, numeric_scale, whole

__all__ = ["Hierarchical"]


@dataclass(frozen=True)
class Hierarchical:
    """Normal weights of deviation ``relevance * scale``, where the relevance has a prior.

    With one relevance an input this is automatic relevance determination (Neal 1996, section
    1.2.3): inputs that do not matter get a small one. The relevance of the parameter ``0.weight``
    is the site ``0.weight.relevance``.

    Attributes
    ----------
    each : "layer" or "input"
        One relevance for the whole parameter, or one for every slice along its second axis, the
        inputs of a linear layer and the input channels of a convolution.
    hyperprior : "half-normal" or "half-cauchy"
        Prior of the relevance.
    spread : float
        Scale of the hyperprior.
    scale : float, "fan_in" or "kaiming"
        What the relevance multiplies.

    Notes
    -----
    Where the data say little, the weights and their relevance form a funnel. Pyro's
    ``LocScaleReparam(0.0)`` on the site of the weights removes it.
    """

    each: Literal["layer", "input"] = "layer"
    hyperprior: Literal["half-normal", "half-cauchy"] = "half-normal"
    spread: float = 1.0
    scale: Scale = "fan_in"

    def __post_init__(self) -> None:
        check_scale(self, self.scale)
        if self.each not in ("layer", "input"):
            raise UserError(f"prior Hierarchical: each is {self.each!r}, give 'layer' or 'input'")
        if self.hyperprior not in ("half-normal", "half-cauchy"):
            raise UserError(
                f"prior Hierarchical: hyperprior is {self.hyperprior!r}, give 'half-normal' or "
                "'half-cauchy'"
            )
        if self.spread <= 0:
            raise UserError(f"prior Hierarchical: spread is {self.spread}, give a number > 0")

    def conditional(self, name: str, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Sample the relevance and return the prior of the parameter given it.

        Raises
        ------
        UserError
            If there is to be one relevance an input and the parameter is a vector.
        """
        shape = _relevance_shape(self.each, name, parameter)
        spread = torch.full(shape, self.spread, dtype=parameter.dtype, device=parameter.device)
        family = dist.HalfNormal if self.hyperprior == "half-normal" else dist.HalfCauchy
        relevance = pyro.sample(f"{name}.relevance", family(spread).to_event(len(shape)))
        deviation = relevance.expand(parameter.shape) * numeric_scale(self.scale, fan_in)
        return whole(dist.Normal(torch.zeros_like(deviation), deviation), parameter)


def _relevance_shape(each: str, name: str, parameter: Tensor) -> tuple[int, ...]:
    if each == "layer":
        return ()
    if parameter.ndim < 2:
        raise UserError(
            f"prior Hierarchical(each='input') cannot be that of '{name}', which has no input "
            "axis: give it to weights only, for example by the pattern '*.weight'"
        )
    return (parameter.shape[1], *(1 for _ in range(parameter.ndim - 2)))
