"""Latent sites of a model: their shapes, their supports and their place in a flat position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints
from torch.distributions.transforms import ComposeTransform, IndependentTransform

from pyro_bnn.errors import UserError
from pyro_bnn.handlers import Node

__all__ = ["Site", "example_values", "is_identity", "read_site"]

# Unconstrained coordinates of a point where densities are finite: zero is an edge of many networks.
_EXAMPLE = 0.1


@dataclass(frozen=True)
class Site:
    """One latent site of a model.

    Attributes
    ----------
    name : str
        The site's name in the model.
    shape : torch.Size
        Shape of a value in the site's own (constrained) space.
    unconstrained_shape : torch.Size
        Shape of the same value in unconstrained space.
    support : Constraint
        Where a value may lie.
    transform : Transform
        From unconstrained space to the support.
    start, stop : int
        The site's part of a flat position ``(chain, dim)``.
    """

    name: str
    shape: torch.Size
    unconstrained_shape: torch.Size
    support: constraints.Constraint
    transform: Transform
    start: int
    stop: int


def read_site(name: str, node: Node, start: int) -> Site:
    """Read a latent site from a trace of its model; its part of a position begins at `start`.

    Raises
    ------
    UserError
        If its name cannot be stored, its values are discrete, or no transform leads to them.
    """
    if "/" in name:
        raise UserError(f"site '{name}' has a '/' in its name: rename it, a trace cannot store it")
    support = node["fn"].support
    if support.is_discrete:
        raise UserError(
            f"latent site '{name}' is discrete ({type(node['fn']).__name__}): gradient-based "
            "samplers need continuous sites; sum it out or observe it"
        )
    shape = node["value"].shape
    try:
        transform = biject_to(support)
        unconstrained = transform.inverse_shape(shape)
    except NotImplementedError as error:
        raise UserError(
            f"latent site '{name}' ({type(node['fn']).__name__}) has the support {support}, which "
            "has no bijection with unconstrained space: build the value of sites that have one, "
            "such as a covariance of LKJCholesky and HalfNormal"
        ) from error
    return Site(
        name, shape, unconstrained, support, transform, start, start + unconstrained.numel()
    )


def example_values(sites: Iterable[Site], like: Tensor) -> dict[str, Tensor]:
    """Return a value for each site, without a chain axis, at which to trace or to try a model.

    Parameters
    ----------
    sites : iterable of Site
        The sites.
    like : Tensor
        Of the dtype and on the device that the values are to have.
    """
    return {
        site.name: site.transform(torch.full(site.unconstrained_shape, _EXAMPLE).to(like))
        for site in sites
    }


def is_identity(transform: Transform) -> bool:
    """Whether a transform returns what it is given, so that it has no Jacobian to count."""
    if isinstance(transform, IndependentTransform):
        return is_identity(transform.base_transform)
    return isinstance(transform, ComposeTransform) and not transform.parts
