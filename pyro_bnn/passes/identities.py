"""Drop operators that return what they are given."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import are_tensors, call, finish, replace, shape, writes

__all__ = ["drop_identities"]

_aten = torch.ops.aten

_RESHAPES = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.reshape.default,
    _aten.expand.default,
    _aten.squeeze.dims,
}


def drop_identities(module: GraphModule) -> None:
    """Remove, in place, what ``vmap`` and autograd leave behind that computes nothing.

    Views to the same shape, products with one, first powers, two transpositions that undo each
    other and sums over an axis of one element. A graph that writes into tensors is left alone:
    there, whether two names mean one tensor matters. Permutations that exchange two axes are
    spelled as transpositions.

    Parameters
    ----------
    module : GraphModule
        Its nodes have ``meta["val"]``.
    """
    if writes(module.graph.nodes):
        return
    for node in list(module.graph.nodes):
        if node.op == "call_function":
            simpler = _simpler(module, node)
            if simpler is not None:
                replace(node, simpler)
                module.graph.erase_node(node)
    finish(module)


def _simpler(module: GraphModule, node: Node) -> Node | None:
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or not are_tensors([source, node]):
        return None
    alike = shape(source) == shape(node) and source.meta["val"].dtype == node.meta["val"].dtype
    if alike and node.target in _RESHAPES:
        return source
    if alike and node.target in (_aten.detach.default, _aten.alias.default):
        return source
    if alike and node.target in (_aten.mul.Scalar, _aten.pow.Tensor_Scalar) and node.args[1] == 1:
        return source
    if node.target is _aten.permute.default:
        order = list(node.args[1])  # type: ignore[arg-type]
        moved = [axis for axis, origin in enumerate(order) if origin % len(order) != axis]
        if not moved:
            return source
        if len(moved) == 2:
            with module.graph.inserting_before(node):
                return call(module.graph, _aten.transpose.int, source, *moved)
    if node.target is _aten.transpose.int and source.target is _aten.transpose.int:
        rank = len(shape(node))
        axes = {int(axis) % rank for axis in node.args[1:]}  # type: ignore[arg-type]
        if axes == {int(axis) % rank for axis in source.args[1:]}:  # type: ignore[arg-type]
            origin = source.args[0]
            return origin if isinstance(origin, Node) else None
    if node.target is _aten.sum.dim_IntList and not node.kwargs and node.args[1]:
        axes = {int(axis) % len(shape(source)) for axis in node.args[1]}  # type: ignore[union-attr, arg-type]
        if all(shape(source)[axis] == 1 for axis in axes):
            with module.graph.inserting_before(node):
                return call(module.graph, _aten.reshape.default, source, list(shape(node)))
    return None
