"""Discovery: from a network to the group of its weight-space symmetries.

The graph is read once by abstract interpretation (`analysis`), each operator by its rule
(`rules`); what is left unpinned permutes, and the null space of the exponent equations scales
and flips. Every generator is then certified on the network itself, in float64.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.assembly import assemble
from pyro_bnn.symmetry.basis import sparse
from pyro_bnn.symmetry.certificate import certify
from pyro_bnn.symmetry.completeness import MOST_WEIGHTS
from pyro_bnn.symmetry.computation import (
    Computation,
    computation,
    is_network,
    is_write,
    memory_of,
)
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.half_flips import half_flips
from pyro_bnn.symmetry.null_directions import with_translations
from pyro_bnn.symmetry.rules import RULES, Call
from pyro_bnn.symmetry.stacked import fate, with_stacks
from pyro_bnn.symmetry.values import Stacked, Value

ODD = "aten.tanh"
SHAPE_ONLY = {
    f"aten.{name}"
    for name in (
        "new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like",
        "empty_like", "sym_size",
    )
}  # fmt: skip


def discover(source: Any, *args: Any, **kwargs: Any) -> SymmetryGroup:
    """Find the weight-space symmetries of a network by reading its computation.

    Parameters
    ----------
    source : LogDensity, callable or torch.nn.Module
        A log density; a Pyro model, followed by its data; or a module, followed by an example
        input, of which only the shape matters. Whole numbers, such as tokens, are used as they
        are: give some that differ.
    *args, **kwargs
        The data of the model, or the example input of the module.

    Returns
    -------
    SymmetryGroup
        Printing it shows the table. Operators without a rule are named in it: discovery may
        miss a symmetry, but each one that it returns changed the output by less than 1e-10
        (relative, float64) when applied.

    Raises
    ------
    UserError
        If the computation depends on values of the weights in its control flow, the example is
        of whole numbers that are all alike, or the source is none of the three.

    Examples
    --------
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> group = discover(net, torch.zeros(5, 4))
    >>> group.spaces["h0"].size, group.spaces["h0"].sites
    (8, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])
    """
    read = computation(source, *args, **kwargs)
    odd, shears = half_flips(read)
    analysis, weights = interpret(read, odd)
    group = replace(assemble(analysis, weights, read), shears=shears)
    group = certify(sparse(with_translations(group, read)), read)
    small = sum(math.prod(shape) for shape in group.shapes.values()) <= MOST_WEIGHTS
    if kwargs and is_network(source):
        small = False  # rows that come by name are not made more
    if kwargs and small:
        # a model with keywords is read once more from its density
        source, args = LogDensity(source, *args, **kwargs), ()
    return replace(group, network=(source, *args) if small else ())


def interpret(read: Computation, odd: Collection[Node] = ()) -> tuple[Analysis, dict[str, Value]]:
    """Run every rule over the graph and solve the exponent equations.

    Parameters
    ----------
    read : Computation
    odd : collection of Node
        Sigmoids that count as odd functions.

    Returns
    -------
    analysis : Analysis
    weights : dict of str to Value
        The weights' spaces and exponents.
    """
    reader = _Reader(read, odd)
    point = read.generic_point(torch.Generator().manual_seed(0))
    with torch.no_grad():
        reader.run(*(point[name] for name in read.weights))
    reader.finish()
    reader.analysis.solve()
    return reader.analysis, reader.weights


class _Reader(Interpreter):
    """Runs a graph once for its shapes and applies the rule of each operator."""

    def __init__(self, read: Computation, odd: Collection[Node]) -> None:
        super().__init__(read.graph)
        self.read = read
        self._odd = odd
        self.analysis = Analysis()
        self.weights: dict[str, Value] = {}
        self.known: dict[Node, Any] = self.analysis.nodes
        self._live = read.live()
        self._names = iter(read.weights)

    def run_node(self, n: Node) -> Any:
        """Evaluate one node, and read it."""
        result = super().run_node(n)
        if n.op == "placeholder":
            name = next(self._names)
            value = self.analysis.parameter(self.read.weights[name].shape)
            self.weights[name] = value
            self.known[n] = value
        elif n not in self._live:
            return result
        elif n.op == "get_attr":
            self.known[n] = result
        elif n.op == "call_function":
            self.known[n] = self._read(n, result)
        elif n.op == "output":
            for value in pytree.tree_leaves(self._known(n.args)):
                for part in value.parts if isinstance(value, Stacked) else (value,):
                    if isinstance(part, Value):
                        self.analysis.pin(part)
                        self.analysis.freeze(part)
        return result

    def finish(self) -> None:
        """Take out of play the weights that are not used or may not be moved."""
        for name, value in self.weights.items():
            kind = self.read.weights[name].kind
            if name in self.read.unused() or kind == "other":
                self.analysis.pin(value)
                self.analysis.freeze(value)
            elif kind == "positive":
                self.analysis.freeze_signs(value)

    def _known(self, arguments: Any) -> Any:
        """Replace nodes by what is known of them; constants are looked at when they are used."""

        def known(leaf: Any) -> Any:
            value = self.known[leaf] if isinstance(leaf, Node) else leaf
            return self.analysis.constant(value) if isinstance(value, Tensor) else value

        return pytree.tree_map(known, arguments, is_leaf=lambda leaf: isinstance(leaf, Node))

    def _read(self, node: Node, result: Any) -> Any:
        name = str(getattr(node.target, "overloadpacket", node.target))
        sources = [self.known[source] for source in node.all_input_nodes]
        fixed = all(isinstance(v, Tensor) for v in pytree.tree_leaves(sources))
        if fixed or name in SHAPE_ONLY:
            return result
        if node.target is operator.getitem:
            source, position = node.args
            assert isinstance(source, Node)
            return self.known[source][position]
        args, kwargs = self._known(node.args), self._known(node.kwargs)
        tensors = [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
        call = Call(
            name=name if node not in self._odd else ODD,
            args=args,
            kwargs=kwargs,
            shapes=tuple(tuple(tensor.shape) for tensor in tensors),
        )
        value = with_stacks(self.analysis, call, lambda c: self._apply(c, result), fate(node))
        if is_write(node):
            self._fill(node)
        return value

    def _apply(self, call: Call, result: Any) -> Any:
        rule = RULES.get(call.name)
        value = rule(self.analysis, call) if rule is not None else None
        if value is not None:
            return value
        self.analysis.unknown(call.name, list(call.tensors()))
        unread = [self.analysis.opaque(shape) for shape in call.shapes]
        return unread if isinstance(result, (list, tuple)) else unread[0]

    def _fill(self, write: Node) -> None:
        """Forget the constant into whose memory something was written that depends on weights."""
        memory = memory_of(write)
        held = self.known.get(memory)
        if isinstance(held, Tensor):
            self.known[memory] = self.analysis.opaque(held.shape)
