"""Sample the sites of a model from one position, as Pyro's guides do."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_bnn.infer.guides.descent import nodes_at_zero
from pyro_bnn.logdensity import LogDensity

__all__ = ["Place", "places", "sample_sites"]


class Place(NamedTuple):
    """Event dimensions of a site, and the plates that it is sampled in."""

    event_dim: int
    plates: tuple[Any, ...]


def places(density: LogDensity) -> dict[str, Place]:
    """Learn the place of each site, from one run of the model."""
    nodes = nodes_at_zero(density)
    return {
        name: Place(nodes[name]["fn"].event_dim, tuple(nodes[name]["cond_indep_stack"]))
        for name in density.sites
    }


def sample_sites(
    density: LogDensity, where: dict[str, Place], position: Tensor
) -> dict[str, Tensor]:
    """Sample every site at its part of a position ``(dim,)``, with the transform's log Jacobian."""
    parts = {name: value[0] for name, value in density.unflatten(position[None]).items()}
    values = {name: site.transform(parts[name]) for name, site in density.sites.items()}
    result = {}
    for name, place in where.items():
        transform = density.sites[name].transform
        jacobian = transform.inv.log_abs_det_jacobian(values[name], parts[name])
        jacobian = sum_rightmost(jacobian, jacobian.ndim - values[name].ndim + place.event_dim)
        with ExitStack() as plates:
            for frame in place.plates:
                plates.enter_context(pyro.plate(frame.name, frame.size, dim=frame.dim))
            delta = dist.Delta(values[name], log_density=jacobian, event_dim=place.event_dim)
            result[name] = pyro.sample(name, delta)
    return result
