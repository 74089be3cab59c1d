"""Views of views and copies for the sake of a layout: reshapes that copy only where they must."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import SAME_ORDER, call, finish, renew_shapes, replace, shape, writes

__all__ = ["join_views"]

_aten = torch.ops.aten


def join_views(module: GraphModule) -> None:
    """Turn copies that are only viewed into reshapes, and chains of reshapes into one, in place.

    ``vmap`` copies activations into the layout of their row-major order before it views them
    anew. Where nothing but views reads such a copy, a reshape does, which copies if it has to.
    Element-wise operators whose result is only read transposed are applied to what is transposed.

    Parameters
    ----------
    module : GraphModule
        A graph without writes; others are left alone.
    """
    if writes(module.graph.nodes):
        return
    for node in list(module.graph.nodes):
        if node.target is _aten.clone.default and all(u.target in SAME_ORDER for u in node.users):
            source = node.args[0]
            for user in list(node.users):
                with module.graph.inserting_before(user):
                    replace(user, call(module.graph, _aten.reshape.default, source, [*shape(user)]))
                module.graph.erase_node(user)
            module.graph.erase_node(node)
    for node in list(module.graph.nodes):
        if node.target in SAME_ORDER and node.args[0].target in SAME_ORDER:
            source = node.args[0].args[0]
            with module.graph.inserting_before(node):
                replace(node, call(module.graph, _aten.reshape.default, source, [*shape(node)]))
            module.graph.erase_node(node)
    for node in list(module.graph.nodes):
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            _transpose_before(module, node)
    renew_shapes(module)
    finish(module)


def _transpose_before(module: GraphModule, node: Node) -> None:
    """Turn ``transpose(f(x))`` into ``f(transpose(x))`` where nothing reads ``f(x)`` as it is."""
    readers = list(node.users)
    axes = {tuple(user.args[1:]) for user in readers if user.target is _aten.transpose.int}
    sources = node.all_input_nodes
    if len(axes) != 1 or len(sources) != 1 or shape(sources[0]) != shape(node):
        return
    if any(user.target is not _aten.transpose.int for user in readers):
        return
    graph = module.graph
    with graph.inserting_before(node):
        first = call(graph, _aten.transpose.int, sources[0], *axes.pop())
        arguments = [first if argument is sources[0] else argument for argument in node.args]
        result = call(graph, node.target, *arguments, **node.kwargs)  # type: ignore[arg-type]
    for user in readers:
        replace(user, result)
        graph.erase_node(user)
    graph.erase_node(node)
