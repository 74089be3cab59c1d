"""Batched matrix products of a graph: laid out for long data, one where all chains share one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

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
                node.replace_all_uses_with(replacement)
                module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _product(module: GraphModule, node: Node) -> Node | None:
    left, right = node.args
    assert isinstance(left, Node)
    assert isinstance(right, Node)
    graph = module.graph
    chains, rows, columns = node.meta["val"].shape
    inner = left.meta["val"].shape[2]
    with graph.inserting_before(node):
        if _shared(module, left) is not None and rows > columns:
            # X (rows, inner) @ B (chain, inner, columns), as (B' X')'.
            shared = graph.call_function(_aten.select.int, (left, 0, 0))
            flipped = graph.call_function(_aten.transpose.int, (right, 1, 2))
            tall = graph.call_function(_aten.reshape.default, (flipped, [chains * columns, inner]))
            across = graph.call_function(_aten.t.default, (shared,))
            flat = graph.call_function(_aten.mm.default, (tall, across))
            whole = graph.call_function(_aten.view.default, (flat, [chains, columns, rows]))
            return graph.call_function(_aten.transpose.int, (whole, 1, 2))
        if _shared(module, right) is not None:
            # A (chain, rows, inner) @ X (inner, columns).
            shared = graph.call_function(_aten.select.int, (right, 0, 0))
            tall = graph.call_function(_aten.reshape.default, (left, [chains * rows, inner]))
            flat = graph.call_function(_aten.mm.default, (tall, shared))
            return graph.call_function(_aten.view.default, (flat, [chains, rows, columns]))
        if rows > columns:
            first = graph.call_function(_aten.transpose.int, (right, 1, 2))
            second = graph.call_function(_aten.transpose.int, (left, 1, 2))
            flipped = graph.call_function(_aten.bmm.default, (first, second))
            return graph.call_function(_aten.transpose.int, (flipped, 1, 2))
    return None


def _shared(module: GraphModule, node: Node) -> Tensor | None:
    """Return a constant operand that repeats one matrix for every chain, else None."""
    if node.op != "get_attr":
        return None
    value = getattr(module, str(node.target))
    return value if isinstance(value, Tensor) and value.stride(0) == 0 else None
