"""Sample the sites of a model from one position, as Pyro's guides do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_bnn.infer.guides.descent import example_nodes
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.running_statistics import declare_statistic

__all__ = ["Place", "declare_statistics", "places", "sample_sites"]


class Place(NamedTuple):
    """Event dimensions of a site, and the plates that it is sampled in."""

    event_dim: int
    plates: tuple[Any, ...]


def places(density: LogDensity) -> dict[str, Place]:
    """Learn the place of each site, from one run of the model."""
    nodes = example_nodes(density)
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


def declare_statistics(density: LogDensity, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Declare the running statistics of a draw, which `Predictive` then hands to the model."""
    if not density.statistics:
        return {}
    with pyro.poutine.block():
        drawn = {name: value.detach()[None] for name, value in values.items()}
        found = with_statistics(density, drawn)
    return {
        name: declare_statistic(name, found[name][0], positive=statistic.positive)
        for name, statistic in density.statistics.items()
    }
