"""What a model's prior says along the orbits, read from its program.

Along the orbit of a hidden unit the likelihood is constant, so that all that is needed of a model
is the prior of each site given the others. The model is traced once for one draw; what does not
lead to a parameter of a prior, the network above all, is dropped from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    HalfCauchy,
    HalfNormal,
    Independent,
    Laplace,
    Normal,
    StudentT,
)
from torch.func import vmap
from torch.fx import Node

from pyro_bnn.graph import trace_graph
from pyro_bnn.logdensity import LogDensity

__all__ = ["PriorTerms", "SitePrior"]


@dataclass(frozen=True)
class SitePrior:
    """The prior of one site, given the others.

    Attributes
    ----------
    form : str
        ``normal``, ``laplace`` or ``student`` (Cauchy and the half-distributions on positive
        numbers too); empty where the density along an orbit has no form that is known here.
    name : str
        The distribution, for messages.
    parents : frozenset of str
        Sites that the prior depends on.
    """

    form: str
    name: str
    parents: frozenset[str]


class PriorTerms:
    """Forms and parameters of the priors of all sites of a model.

    Parameters
    ----------
    density : LogDensity

    Attributes
    ----------
    sites : dict of str to SitePrior
    """

    def __init__(self, density: LogDensity) -> None:
        names = tuple(density.sites)
        priors: dict[str, tuple[str, str]] = {}

        def parameters(*values: Tensor) -> dict[str, Tensor]:
            trace = density.trace_at(dict(zip(names, values, strict=True)))
            found: dict[str, Tensor] = {}
            for name in names:
                node = trace.nodes[name]
                form, words, numbers = _read(node)
                priors[name] = form, words
                shape = density.sites[name].shape
                for key, number in numbers.items():
                    found[f"{name}/{key}"] = number.expand(shape if key != "log_prob" else ())
            return found

        with pyro.validation_enabled(False):
            somewhere = density.example_values()
            example = [somewhere[name] for name in names]
            # Traced here for what depends on what, and run under vmap for the numbers.
            graph = trace_graph(parameters, *example)
            self._keys = list(parameters(*example))
        self._graph = graph
        reached = _reached(graph.graph, names)
        self.sites: dict[str, SitePrior] = {}
        for name in names:
            own = [reached[key] for key in self._keys if key.partition("/")[0] == name]
            parents = frozenset[str]().union(*own) - {name}
            self.sites[name] = SitePrior(*priors[name], parents)
        self._fixed: dict[str, Tensor] = {}
        if not any(prior.parents for prior in self.sites.values()):
            fixed = graph(*example)
            self._fixed = {k: v for k, v in fixed.items() if not k.endswith("/log_prob")}
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(2, density.dim, generator=generator, dtype=torch.float64)
        self._somewhere = self.at(density.constrain(points.to(density.device, density.dtype)))

    def centred(self, site: str) -> bool:
        """Whether the location of a prior is zero, tried at random values of the other sites."""
        return bool((self._somewhere[site]["loc"] == 0).all())

    def at(self, values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return the parameters of every site's prior, given the values of all sites.

        Parameters
        ----------
        values : dict of str to Tensor
            ``(chain, *shape)`` for each site, in its own space.

        Returns
        -------
        dict of str to dict of str to Tensor
            ``loc`` and ``scale`` (and ``df``) of sites with a form, ``(chain or 1, *shape)``.
        """
        found = {key: value[None] for key, value in self._fixed.items()}
        if not found:
            names = list(self.sites)
            found = vmap(self._graph)(*(values[name] for name in names))
        result: dict[str, dict[str, Tensor]] = {name: {} for name in self.sites}
        for key, value in found.items():
            name, _, parameter = key.partition("/")
            if parameter != "log_prob":
                result[name][parameter] = value
        return result


def _read(node: Mapping[str, Any]) -> tuple[str, str, dict[str, Tensor]]:
    """Return the form of a prior, its name in words and its parameters."""
    prior = node["fn"]
    while isinstance(prior, Independent):
        prior = prior.base_dist
    words = type(prior).__name__
    plain = node["mask"] is None and isinstance(node["scale"], float | int) and node["scale"] == 1
    if not plain:
        return "", f"masked or rescaled {words}", {"log_prob": node["log_prob_sum"]}
    zero = torch.zeros((), dtype=node["value"].dtype, device=node["value"].device)
    if isinstance(prior, Normal):
        return "normal", words, {"loc": prior.loc, "scale": prior.scale}
    if isinstance(prior, HalfNormal):
        return "normal", words, {"loc": zero, "scale": prior.scale}
    if isinstance(prior, Laplace):
        return "laplace", words, {"loc": prior.loc, "scale": prior.scale}
    if isinstance(prior, StudentT):
        return "student", words, {"loc": prior.loc, "scale": prior.scale, "df": prior.df}
    if isinstance(prior, Cauchy):
        return "student", words, {"loc": prior.loc, "scale": prior.scale, "df": zero + 1}
    if isinstance(prior, HalfCauchy):
        return "student", words, {"loc": zero, "scale": prior.scale, "df": zero + 1}
    return "", words, {"log_prob": node["log_prob_sum"]}


def _reached(graph: Any, names: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return the placeholders, by name, that each output depends on."""
    nodes: list[Node] = list(graph.nodes)
    sources: dict[Node, frozenset[str]] = {}
    inputs = iter(names)
    for node in nodes:
        if node.op == "placeholder":
            sources[node] = frozenset([next(inputs)])
        else:
            sources[node] = frozenset[str]().union(*(sources[n] for n in node.all_input_nodes))
    outputs = next(node for node in nodes if node.op == "output").args[0]
    assert isinstance(outputs, Mapping)
    return {
        key: sources[value] if isinstance(value, Node) else frozenset()
        for key, value in outputs.items()
    }
