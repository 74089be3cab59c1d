"""Compute once what a graph computes twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import attribute, finish, replace, writes

__all__ = ["drop_repeats"]

_RANDOM = torch.Tag.nondeterministic_seeded


def drop_repeats(module: GraphModule) -> None:
    """Let equal calls on equal arguments, in place, be one call.

    The backward pass of a function recomputes what its forward pass has: differences from the
    mean, the exponent of a softmax. Reads of one constant count as equal.

    Parameters
    ----------
    module : GraphModule
        A graph without random numbers in what it repeats; one that writes is left alone.
    """
    if writes(module.graph.nodes):
        return
    seen: dict[Any, Node] = {}
    for node in list(module.graph.nodes):
        key = _key(module, node)
        if key is None:
            continue
        if key in seen:
            replace(node, seen[key])
            module.graph.erase_node(node)
        else:
            seen[key] = node
    finish(module)


def _key(module: GraphModule, node: Node) -> Any:
    value = attribute(module, node)
    if isinstance(value, Tensor):
        return (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
    if node.op != "call_function" or _RANDOM in getattr(node.target, "tags", ()):
        return None
    # The text tells 1 from 1.0 and from True.
    return (node.target, str(node.args), str(node.kwargs))
