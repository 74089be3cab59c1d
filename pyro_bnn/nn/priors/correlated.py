"""Normal priors with correlations: over the positions of a filter, or over a whole parameter."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import ReshapeTransform

from pyro_bnn.errors import UserError
from pyro_bnn.nn.priors.prior import Scale, check_scale, numeric_scale

__all__ = ["CorrelatedFilters", "Multivariate"]


@dataclass(frozen=True)
class CorrelatedFilters:
    r"""Neighbouring weights of a convolution's filter are alike (Fortuin et al. 2022, section 4).

    Filters are independent of one another; within a filter the covariance of two positions at
    distance d is :math:`\text{scale}^2 \exp(-d / \text{lengthscale})`, the Matern kernel of
    smoothness 1/2.

    Attributes
    ----------
    scale : float, "fan_in" or "kaiming"
        Standard deviation of each weight.
    lengthscale : float
        In pixels of the filter.
    """

    scale: Scale = "fan_in"
    lengthscale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)
        if self.lengthscale <= 0:
            raise UserError(
                f"prior CorrelatedFilters: lengthscale is {self.lengthscale}, give a number > 0"
            )

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter.

        Raises
        ------
        UserError
            If the parameter is not the weight of a convolution.
        """
        if parameter.ndim < 3:
            raise UserError(
                f"prior CorrelatedFilters: a parameter of shape {tuple(parameter.shape)} has no "
                "filter positions: give it to convolution weights only, by name or pattern"
            )
        spatial = parameter.shape[2:]
        axes = [torch.arange(n, dtype=torch.float64) for n in spatial]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        covariance = torch.exp(-torch.cdist(points, points) / self.lengthscale)
        factor = numeric_scale(self.scale, fan_in) * torch.linalg.cholesky(covariance)
        filters = parameter.new_zeros(*parameter.shape[:2], len(points))
        prior = dist.MultivariateNormal(filters, scale_tril=factor.to(parameter)).to_event(2)
        return _reshaped(prior, filters.shape, parameter.shape)


class Multivariate:
    """One normal over all entries of a parameter.

    Parameters
    ----------
    covariance : Tensor
        ``(n, n)`` for a parameter of n entries, in the order of its ``flatten()``.

    Raises
    ------
    UserError
        If the covariance is not positive definite.
    """

    def __init__(self, covariance: Tensor) -> None:
        factor, info = torch.linalg.cholesky_ex(covariance)
        if int(info):
            raise UserError("prior Multivariate: the covariance is not positive definite")
        self.covariance = covariance
        self._factor = factor

    def __repr__(self) -> str:
        return f"Multivariate({tuple(self.covariance.shape)})"

    def __call__(self, parameter: Tensor, fan_in: int) -> dist.TorchDistribution:
        """Return the prior of one parameter.

        Raises
        ------
        UserError
            If the covariance is of another size.
        """
        entries = parameter.numel()
        if self.covariance.shape != (entries, entries):
            raise UserError(
                f"prior Multivariate: the covariance is {tuple(self.covariance.shape)}, a "
                f"parameter of shape {tuple(parameter.shape)} needs ({entries}, {entries})"
            )
        centre = torch.zeros(entries, dtype=parameter.dtype, device=parameter.device)
        prior = dist.MultivariateNormal(centre, scale_tril=self._factor.to(parameter))
        return _reshaped(prior, centre.shape, parameter.shape)


def _reshaped(
    prior: dist.TorchDistribution, was: torch.Size, becomes: torch.Size
) -> dist.TorchDistribution:
    shaped: dist.TorchDistribution = dist.TransformedDistribution(
        prior, [ReshapeTransform(was, becomes)]
    )
    return shaped
