"""Write results over operands that nothing reads any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import finish, meta, replace, writes

__all__ = ["reuse_memory"]

_aten = torch.ops.aten

# Operators outside of the pointwise tag whose result may be a view of an argument.
_MAYBE_VIEWS = {_aten.reshape.default, _aten.contiguous.default, _aten.to.dtype}

_SMALL = 4096


def reuse_memory(module: GraphModule) -> None:
    """Let element-wise operators write over a dying operand of the same layout, in place.

    An activation of a few megabytes that is written into fresh memory is first read from there
    by the processor; over its operand it stays in cache. Inputs, constants and outputs of the
    graph are never written to. Run this last: no other pass looks at graphs that write.

    Parameters
    ----------
    module : GraphModule
        A graph without writes.
    """
    if writes(module.graph.nodes):
        return
    nodes = list(module.graph.nodes)
    owner = {node: _owner(node) for node in nodes}
    last_read: dict[Node, int] = {}
    for index, node in enumerate(nodes):
        for source in node.all_input_nodes:
            last_read[_root(owner, source)] = index
    for index, node in enumerate(nodes):
        target = _out_variant(node)
        if target is None:
            continue
        for operand in node.all_input_nodes:
            root = _root(owner, operand)
            others = [other for other in node.all_input_nodes if other is not operand]
            if (
                root.op == "call_function"
                and last_read[root] == index
                and _alike(node, operand)
                and all(_root(owner, other) is not root for other in others)
            ):
                overload, keyword, more = target
                with module.graph.inserting_before(node):
                    arguments = {**node.kwargs, keyword: operand}
                    new = module.graph.call_function(overload, (*node.args, *more), arguments)
                new.meta = dict(node.meta)
                replace(node, new)
                module.graph.erase_node(node)
                # From here on the result lives in the operand's memory.
                owner[node] = owner[new] = root
                last_read[root] = last_read.get(node, index)
                break
    finish(module)


def _out_variant(node: Node) -> tuple[Callable[..., Any], str, tuple[Any, ...]] | None:
    """Return what writes as an element-wise operator, its keyword, and arguments it needs more."""
    target: Any = node.target
    if node.op != "call_function" or torch.Tag.pointwise not in getattr(target, "tags", ()):
        return None
    if not isinstance(node.meta.get("val"), Tensor) or node.meta["val"].numel() < _SMALL:
        return None
    if target is _aten.relu.default:
        return _aten.clamp_min.out, "out", (0,)
    packet = target.overloadpacket
    wanted = [argument.name for argument in target._schema.arguments]
    for name in packet.overloads():
        overload = getattr(packet, name)
        given = [argument.name for argument in overload._schema.arguments if not argument.is_out]
        written = [argument.name for argument in overload._schema.arguments if argument.is_out]
        types = [str(a.type) for a in overload._schema.arguments if not a.is_out]
        functional = [str(argument.type) for argument in target._schema.arguments]
        # What is generated from the operator without writes writes by a copy.
        copies = torch.Tag.generated in overload.tags
        if given == wanted and types == functional and len(written) == 1 and not copies:
            return overload, written[0], ()
    return None


def _owner(node: Node) -> Node | None:
    """Return the argument whose memory the result of a node may share, None for new memory."""
    schema: Any = getattr(node.target, "_schema", None)
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    # An operator that is not known, such as getitem, may return what it is given.
    may_view = schema is None or node.target in _MAYBE_VIEWS
    may_view = may_view or any(result.alias_info is not None for result in schema.returns)
    return node.all_input_nodes[0] if may_view else None


def _root(owner: dict[Node, Node | None], node: Node) -> Node:
    while (source := owner[node]) is not None:
        node = source
    return node


def _alike(node: Node, operand: Node) -> bool:
    """Whether two nodes have one shape, dtype and layout, without overlapping elements."""
    value = operand.meta.get("val")
    if not isinstance(value, Tensor):
        return False
    first, second = meta(node), meta(operand)
    overlaps = any(
        stride == 0 and size > 1 for size, stride in zip(second.shape, second.stride(), strict=True)
    )
    return (
        not overlaps
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.stride() == second.stride()
    )
