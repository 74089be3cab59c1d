"""Log-probabilities of classes in one operator."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import call, finish, replace, shape

__all__ = ["use_log_softmax"]

_aten = torch.ops.aten


def use_log_softmax(module: GraphModule) -> None:
    """Turn ``x - logsumexp(x)`` into ``log_softmax(x)``, in place, along the layout of ``x``.

    Parameters
    ----------
    module : GraphModule
        Its nodes have ``meta["val"]``.
    """
    for node in list(module.graph.nodes):
        if node.target is not _aten.sub.Tensor or node.kwargs:
            continue
        logits, total = node.args
        if (
            isinstance(logits, Node)
            and isinstance(total, Node)
            and total.target is _aten.logsumexp.default
            and total.args[0] is logits
            and len(total.args) == 3
            and total.args[2]
            and len(total.args[1]) == 1  # type: ignore[arg-type]
        ):
            axis = int(total.args[1][0]) % len(shape(logits))  # type: ignore[index, arg-type]
            replace(node, _log_softmax(module, node, logits, axis))
            module.graph.erase_node(node)
    finish(module)


def _log_softmax(module: GraphModule, node: Node, logits: Node, axis: int) -> Node:
    """Insert ``log_softmax``, transposed where that makes its operand contiguous."""
    graph = module.graph
    value = logits.meta["val"]
    last = value.ndim - 1
    flips = axis == last > 0 and value.transpose(last - 1, last).is_contiguous()
    with graph.inserting_before(node):
        if not flips:
            return call(graph, _aten._log_softmax.default, logits, axis, False)
        flipped = call(graph, _aten.transpose.int, logits, last - 1, last)
        result = call(graph, _aten._log_softmax.default, flipped, last - 1, False)
        return call(graph, _aten.transpose.int, result, last - 1, last)
