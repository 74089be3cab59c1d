"""Find the network inside of a Pyro model, by watching which modules it calls."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import example_nodes
from pyro_bnn.logdensity import LogDensity

__all__ = ["Call", "Network", "find_network", "watch"]

_ROWS = 256


class Call(NamedTuple):
    """A call of a module.

    Attributes
    ----------
    module : nn.Module
        What was called.
    inputs : tuple
        What it was called with.
    output : Tensor or other
        What it returned.
    sites : dict of str to str
        Parameter name to the name of the latent site whose value it had, in the module's order.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    output: Any
    sites: dict[str, str]


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
    whole = [call for call in calls if set(call.sites.values()) == set(density.sites)]
    if not whole:
        covered = max((set(call.sites.values()) for call in calls), key=len, default=set())
        left = next(name for name in density.sites if name not in covered)
        raise UserError(
            "no module of the model has all latent sites as its parameters, "
            f"site '{left}' is not covered: lift() one network, or "
            "take Laplace(structure='hessian'), which needs none"
        )
    module, inputs, output, sites = whole[-1]
    inside = {id(part): name for name, part in module.named_modules()}
    last: tuple[str, ...] = ()
    for call in calls:
        if id(call.module) in inside:
            own = {name for name, _ in call.module.named_parameters(recurse=False)}
            last = tuple(site for name, site in call.sites.items() if name in own) or last
    likelihood, noise = _likelihood([nodes[name] for name in density.observed], output)
    own_copy = copy.deepcopy(module)
    for name, parameter in own_copy.named_parameters():
        parameter.requires_grad_(name in sites)
    if isinstance(output, Tensor) and output.ndim == 1:  # one output a row all the same
        own_copy.register_forward_hook(lambda _, given, result: result[:, None])
    x, y = inputs[0], nodes[density.observed[-1]]["value"]
    if density.some.longest() < density.rows:
        x, y = _all_rows(density, module)
    prefix = next(site[: len(site) - len(name)] for name, site in sites.items())
    statistics = {
        name: prefix + name
        for name, _ in own_copy.named_buffers()
        if prefix + name in density.statistics
    }
    if statistics:
        own_copy.eval()  # normalise by what is placed
    return Network(own_copy, sites, statistics, last, x, y, likelihood, noise)


def watch(density: LogDensity) -> tuple[list[Call], Mapping[str, Any]]:
    """Run the model once, on few rows of many; return the calls of its modules, and its nodes."""
    calls: list[tuple[nn.Module, Any, Any, dict[str, Tensor]]] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: calls.append(
            (module, inputs, output, dict(module.named_parameters()))
        )
    )
    try:
        nodes = example_nodes(density)
    finally:
        handle.remove()
    # What a lifted module is called with are the values of the sites themselves.
    known = {id(nodes[site]["value"]): site for site in density.sites}
    found = [
        Call(module, inputs, output, {n: known[id(t)] for n, t in own.items() if id(t) in known})
        for module, inputs, output, own in calls
    ]
    return found, nodes


def _all_rows(density: LogDensity, module: nn.Module) -> tuple[Tensor, Tensor]:
    """Input of a module and observed values of all rows, which the model sees some at a time."""
    inputs: list[Tensor] = []
    parts = []
    handle = module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        for rows in torch.arange(density.rows, device=density.device).split(_ROWS):
            observed = example_nodes(density, rows)[density.observed[-1]]["value"]
            parts.append((inputs[-1], observed))
            inputs.clear()
    finally:
        handle.remove()
    x, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return x, y


def _likelihood(
    observed: Sequence[Mapping[str, Any]], output: Any
) -> tuple[Literal["classification", "regression"], float]:
    if len(observed) != 1:
        raise UserError(
            f"the model observes {len(observed)} sites, Laplace takes the curvature of one: take "
            "Laplace(structure='hessian'), which takes that of all"
        )
    (node,) = observed
    if node["mask"] is not None or not isinstance(node["scale"], float) or node["scale"] != 1.0:
        raise UserError(
            f"site '{node['name']}' is masked or scaled, which Laplace can take into account by "
            "structure='hessian' alone"
        )
    base = node["fn"]
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
