"""Activation matching: units that do the same on given inputs are the same unit.

The hidden tensors that run through each space are found in the traced graph of the network. Two
units are as alike as what they compute is correlated over the inputs, and each space is matched
by linear assignment (Li et al., 2016; Ainsworth et al., 2023, section 3.1).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.assembly import layout_of
from pyro_bnn.symmetry.computation import computation, from_module, is_network
from pyro_bnn.symmetry.discovery import interpret
from pyro_bnn.symmetry.group import SymmetryGroup, Term
from pyro_bnn.symmetry.overlap import sign_families
from pyro_bnn.symmetry.rows import occurrences
from pyro_bnn.symmetry.values import Value


@dataclass(frozen=True)
class Activations:
    """The hidden tensors of a network on given inputs, as a function of its weights.

    Attributes
    ----------
    group : SymmetryGroup
        The hidden tensors in the place of weights: which axes of each run through which space.
    graph : GraphModule
        From the weights to the hidden tensors.
    weights : tuple of str
        The weights, in the order in which the graph takes them.
    """

    group: SymmetryGroup
    graph: GraphModule
    weights: tuple[str, ...]

    def __call__(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Evaluate the hidden tensors and standardise every unit over the inputs.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(batch, *shape)`` for each weight.

        Returns
        -------
        dict of str to Tensor
            ``(batch, *shape)`` for each hidden tensor, in float64: each unit has mean zero and
            norm one over the axes that belong to no unit.
        """
        values = [params[name].double() for name in self.weights]
        with torch.no_grad():
            hidden = torch.vmap(self.graph)(*values)
        return {
            name: self._standardised(name, value)
            for name, value in zip(self.group.shapes, hidden, strict=True)
        }

    @property
    def entries(self) -> int:
        """How many numbers the hidden tensors of one draw are."""
        return sum(torch.Size(shape).numel() for shape in self.group.shapes.values())

    def _standardised(self, name: str, value: Tensor) -> Tensor:
        over = [
            axis + 1
            for axis, factors in enumerate(self.group.layout[name])
            if not any(s in self.group.spaces for p in action.places(factors) for s in p.spaces)
        ]
        if over:
            value = value - value.mean(over, keepdim=True)
            norm = value.square().sum(over, keepdim=True).sqrt()
        else:
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.ndim - 1))
        return value / torch.where(norm > 0, norm, 1.0)


def activations(group: SymmetryGroup, source: Any, *args: Any, **kwargs: Any) -> Activations:
    """Find the hidden tensors of a network that run through its spaces.

    Parameters
    ----------
    group : SymmetryGroup
        The group of the network.
    source : LogDensity, callable or torch.nn.Module
        The network, as `discover` takes it. The inputs are those that it comes with: the data
        of a log density or model, or the example given with a module.
    *args, **kwargs
        The data of a model, or the input of a module.

    Raises
    ------
    UserError
        If the network has other weights than the group.

    Examples
    --------
    >>> from torch import nn
    >>> from pyro_bnn.symmetry import Quotient, discover
    >>> net, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.randn(20, 2)
    >>> group = discover(net, x)
    >>> seen = activations(group, net, x)
    >>> quotient = Quotient(group, permutation="activation-matching", activations=seen)
    """
    if is_network(source):
        read = from_module(source, args, kwargs, noise=False)
    else:
        read = computation(source, *args, **kwargs)
    missing = [name for name in read.weights if name not in group.shapes]
    if missing:
        raise UserError(
            f"the network has the weights {', '.join(map(repr, missing[:3]))}, which the group "
            "has not: was the group discovered on another network?"
        )
    analysis, weights = interpret(read)
    values = {
        node: value
        for node, value in analysis.nodes.items()
        if isinstance(value, Value) and value.constant is None
    }
    layout = layout_of({node.name: value for node, value in values.items()}, analysis, weights)
    taps: dict[Node, set[str]] = {}
    # a view of numbers that are there already says nothing new
    owners = {value.owner for value in weights.values()}
    for node, value in values.items():
        through = {s for axis in layout[node.name] for p in action.places(axis) for s in p.spaces}
        if value.owner not in owners and through & set(group.permutable):
            taps[node] = through
            owners.add(value.owner)
    spaces = {
        name: replace(
            space,
            sites=[
                (node.name, axis)
                for node, through in taps.items()
                for axis, factors in enumerate(layout[node.name])
                if name in through and any(name in p.spaces for p in action.places(factors))
            ],
        )
        for name, space in group.permutable.items()
    }
    hidden = SymmetryGroup(
        shapes={node.name: values[node].shape for node in taps},
        layout={node.name: layout[node.name] for node in taps},
        dims={},
        spaces={name: space for name, space in spaces.items() if space.sites},
    )
    flips = {}
    for space, family in sign_families(group).items():
        terms = tuple(
            Term(where.site, where.block, where.axis, where.place, 1.0)
            for where in (occurrences(hidden, space) if space in hidden.spaces else ())
        )
        flips[family] = replace(group.families[family], terms=terms)
    hidden = replace(hidden, families=flips)
    return Activations(hidden, _ending_at(read.graph, list(taps)), tuple(read.weights))


def _ending_at(graph: GraphModule, nodes: Sequence[Node]) -> GraphModule:
    """Return a graph that gives the values of some nodes of another."""
    result = copy.deepcopy(graph)
    own = {node.name: node for node in result.graph.nodes}
    (output,) = result.graph.find_nodes(op="output")
    output.args = (tuple(own[node.name] for node in nodes),)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result
