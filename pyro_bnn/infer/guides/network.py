"""Find the network inside of a Pyro model, by watching which modules it calls."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import nodes_at_zero
from pyro_bnn.logdensity import LogDensity

__all__ = ["Call", "Network", "find_network", "sites_of", "watch"]

Call = tuple[nn.Module, Any, Any]
"""A module, its inputs and its output."""


class Network(NamedTuple):
    """A module all of whose latent sites are its parameters, and the likelihood on its output.

    Attributes
    ----------
    module : nn.Module
        A copy, in which parameters that are no sites need no gradient.
    sites : dict of str to str
        Parameter name to site name, in the module's order.
    statistics : dict of str to str
        Buffer name to the name of the running statistic that it holds.
    last : tuple of str
        Sites of the last layer that was called.
    x, y : Tensor
        Input of the module and observed values.
    likelihood : str
        ``"classification"`` or ``"regression"``.
    noise : float
        Standard deviation of a regression; 1 for a classification.
    """

    module: nn.Module
    sites: dict[str, str]
    statistics: dict[str, str]
    last: tuple[str, ...]
    x: Tensor
    y: Tensor
    likelihood: Literal["classification", "regression"]
    noise: float

    def place(self, values: dict[str, Tensor]) -> None:
        """Give the module's parameters the values of its sites, its buffers the statistics."""
        with torch.no_grad():
            for name, site in self.sites.items():
                self.module.get_parameter(name).copy_(values[site])
            for name, statistic in self.statistics.items():
                self.module.get_buffer(name).copy_(values[statistic])


def find_network(density: LogDensity) -> Network:
    """Run the model once and find the module that its sites are the parameters of.

    Raises
    ------
    UserError
        If there is none, a site is not its parameter, or the likelihood is not a categorical one
        of its output as logits or a normal one of its output as mean with one fixed deviation.
    """
    calls, nodes = watch(density)
    whole = [
        call for call in calls if set(sites_of(call[0], density).values()) == set(density.sites)
    ]
    if not whole:
        covered = max(
            (set(sites_of(call[0], density).values()) for call in calls), key=len, default=set()
        )
        left = next(name for name in density.sites if name not in covered)
        raise UserError(
            "no module of the model has all latent sites as its parameters, "
            f"site '{left}' is not covered: lift() one network, or "
            "take Laplace(structure='hessian'), which needs none"
        )
    module, inputs, output = whole[-1]
    sites = sites_of(module, density)
    inside = {id(part): name for name, part in module.named_modules()}
    last: tuple[str, ...] = ()
    for called, _, _ in calls:
        own = [
            f"{inside[id(called)]}.{name}".lstrip(".")
            for name, _ in called.named_parameters(recurse=False)
            if id(called) in inside
        ]
        last = tuple(sites[name] for name in own if name in sites) or last
    likelihood, noise = _likelihood(nodes[density.observed[-1]] if density.observed else {}, output)
    own_copy = copy.deepcopy(module)
    for name, parameter in own_copy.named_parameters():
        parameter.requires_grad_(name in sites)
    y = nodes[density.observed[-1]]["value"]
    prefix = next(site[: len(site) - len(name)] for name, site in sites.items())
    statistics = {
        name: prefix + name
        for name, _ in own_copy.named_buffers()
        if prefix + name in density.statistics
    }
    if statistics:
        own_copy.eval()  # normalise by what is placed
    return Network(own_copy, sites, statistics, last, inputs[0], y, likelihood, noise)


def watch(density: LogDensity) -> tuple[list[Call], Mapping[str, Any]]:
    """Run the model once and return the calls of its modules, and its nodes."""
    calls: list[Call] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: calls.append((module, inputs, output))
    )
    try:
        nodes = nodes_at_zero(density)
    finally:
        handle.remove()
    return calls, nodes


def sites_of(module: nn.Module, density: LogDensity) -> dict[str, str]:
    """Parameter name to site name, for the prefix that fits the first site."""
    first = next(iter(density.sites))
    for name, _ in module.named_parameters():
        if first.endswith(name):
            prefix = first[: len(first) - len(name)]
            return {
                own: prefix + own
                for own, parameter in module.named_parameters()
                if prefix + own in density.sites
                and density.sites[prefix + own].shape == parameter.shape
            }
    return {}


def _likelihood(node: Any, output: Any) -> tuple[Literal["classification", "regression"], float]:
    base = node.get("fn")
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if isinstance(base, dist.Categorical) and isinstance(output, Tensor):
        logits = torch.log_softmax(output, -1)
        if logits.shape == base.logits.shape and torch.allclose(logits, base.logits):
            return "classification", 1.0
    if isinstance(base, dist.Normal) and isinstance(output, Tensor):
        scale = base.scale.flatten()
        alike = output.numel() == base.loc.numel() and torch.allclose(
            output.flatten(), base.loc.flatten()
        )
        if alike and bool((scale == scale[0]).all()):
            return "regression", float(scale[0])
    raise UserError(
        f"the likelihood {type(base).__name__} is not a Categorical with the network's output as "
        "logits nor a Normal with it as mean and one fixed scale: take "
        "Laplace(structure='hessian')"
    )
