"""The gradient of a model's log prior by its sites, in their own spaces, without the network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import grad, vmap

from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.computation import Weight, prior_graph
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

        graph = prior_graph(density)

        def log_prior(*values: Tensor) -> Tensor:
            found: Tensor = graph(*values).sum()
            return found

        self._gradient = vmap(grad(log_prior, argnums=tuple(range(len(self._names)))))
        terms = PriorTerms(density)
        self.normal = frozenset(
            name
            for name, prior in terms.sites.items()
            if prior.form == "normal" and terms.centred(name)
        )

    def __call__(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the score of every site, ``(batch, *shape)`` in float64."""
        points = [values[name].cpu().double() for name in self._names]
        temperature = self._density.posterior_temperature
        result = {}
        for name, point, slope in zip(self._names, points, self._gradient(*points), strict=True):
            positive = Weight((), self._density.sites[name].support).kind == "positive"
            jacobian = point.reciprocal() if positive else torch.zeros_like(point)
            score = (slope + jacobian) / temperature - jacobian
            result[name] = score.to(values[name].device)
        return result
