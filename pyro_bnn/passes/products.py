"""Batched matrix products of a graph: laid out for long data, one where all chains share one."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import attribute, call, constant, finish, renew_shapes, replace, shape

__all__ = ["lay_out_products"]

_aten = torch.ops.aten


def lay_out_products(module: GraphModule) -> None:
    """Rewrite, in place, the batched products of a graph that ``vmap`` made.

    Two rewritings, neither of which changes a value beyond rounding:

    - A product with an operand that is the same for all chains, such as the inputs in a network's
      first layer, becomes one product over all chains, ``(chain * unit, input) @ (input, data)``.
    - Any other product with more rows than columns is computed transposed. The data axis then
      comes last in memory, where what follows (activations, reductions) runs along it.

    Parameters
    ----------
    module : GraphModule
        Its nodes have ``meta["val"]`` and its constants are attributes.
    """
    for node in list(module.graph.nodes):
        if node.target is _aten.bmm.default:
            replacement = _product(module, node)
            if replacement is not None:
                replace(node, replacement)
                module.graph.erase_node(node)
    renew_shapes(module)
    finish(module)


def _product(module: GraphModule, node: Node) -> Node | None:
    left, right = node.args
    assert isinstance(left, Node)
    assert isinstance(right, Node)
    graph = module.graph
    chains, rows, columns = shape(node)
    inner = shape(left)[2]
    with graph.inserting_before(node):
        inputs = _shared(module, left) if rows > columns else None
        if inputs is not None:
            # X (rows, inner) @ B (chain, inner, columns), as (B' X')'.
            flipped = call(graph, _aten.transpose.int, right, 1, 2)
            tall = call(graph, _aten.reshape.default, flipped, [chains * columns, inner])
            flat = call(graph, _aten.mm.default, tall, _transpose(module, inputs))
            whole = call(graph, _aten.view.default, flat, [chains, columns, rows])
            return call(graph, _aten.transpose.int, whole, 1, 2)
        inputs = _shared(module, right)
        if inputs is not None:
            # A (chain, rows, inner) @ X (inner, columns).
            tall = call(graph, _aten.reshape.default, left, [chains * rows, inner])
            flat = call(graph, _aten.mm.default, tall, inputs)
            return call(graph, _aten.view.default, flat, [chains, rows, columns])
        if rows > columns:
            first = call(graph, _aten.transpose.int, right, 1, 2)
            second = call(graph, _aten.transpose.int, left, 1, 2)
            flipped = call(graph, _aten.bmm.default, first, second)
            return call(graph, _aten.transpose.int, flipped, 1, 2)
    return None


def _transpose(module: GraphModule, matrix: Node) -> Node:
    value = attribute(module, matrix)
    if value is not None:
        return constant(module, value.T)
    return call(module.graph, _aten.t.default, matrix)


def _shared(module: GraphModule, node: Node) -> Node | None:
    """Return the matrix that an operand repeats for every chain, None for another operand."""
    value = attribute(module, node)
    if value is not None:
        return constant(module, value[0]) if value.stride(0) == 0 else None
    source = node
    while source.target in (_aten.view.default, _aten.expand.default):
        if source.meta["val"].stride(0) != 0 or shape(source) != shape(node):
            return None
        source = source.args[0]  # type: ignore[assignment]
        if source.target is _aten.unsqueeze.default and source.args[1] == 0:
            return source.args[0]  # type: ignore[return-value]
    return None
