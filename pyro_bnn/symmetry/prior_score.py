"""The gradient of a model's log prior by its sites, in their own spaces, without the network."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from torch import Tensor
from torch.func import grad, vmap

from pyro_bnn.graph import trace_graph
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.computation import Weight, to_float64
from pyro_bnn.symmetry.orbit_prior import PriorTerms

__all__ = ["PriorScore"]


class PriorScore:
    """The score of the tempered prior: what Stein identities are made of.

    A posterior at temperature ``T`` has the prior raised to ``1 / T`` in unconstrained space; in
    a positive site's own space that leaves its Jacobian over.

    Parameters
    ----------
    density : LogDensity

    Attributes
    ----------
    normal : frozenset of str
        Sites whose prior is normal and centred at zero, given the others.
    """

    def __init__(self, density: LogDensity) -> None:
        self._density = density
        self._names = tuple(density.sites)

        def log_prior(*values: Tensor) -> Tensor:
            trace = density.trace_at(dict(zip(self._names, values, strict=True)))
            parts = [trace.nodes[name]["log_prob_sum"] for name in self._names]
            return sum(parts[1:], parts[0])

        somewhere = density.example_values()
        example = [somewhere[name] for name in self._names]
        with pyro.validation_enabled(False):
            graph = to_float64(trace_graph(log_prior, *example))
        self._gradient = vmap(grad(graph, argnums=tuple(range(len(example)))))
        terms = PriorTerms(density)
        self.normal = frozenset(
            name
            for name, prior in terms.sites.items()
            if prior.form == "normal" and terms.centred(name)
        )

    def __call__(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the score of every site, ``(batch, *shape)`` in float64."""
        points = [values[name].to(self._density.device).double() for name in self._names]
        temperature = self._density.posterior_temperature
        result = {}
        for name, point, slope in zip(self._names, points, self._gradient(*points), strict=True):
            positive = Weight((), self._density.sites[name].support).kind == "positive"
            jacobian = point.reciprocal() if positive else torch.zeros_like(point)
            result[name] = (slope + jacobian) / temperature - jacobian
        return result
