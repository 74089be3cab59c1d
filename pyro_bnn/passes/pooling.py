"""Pooling of images whose data lie last in memory."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.convolve import convolve
from pyro_bnn.passes.rewrite import call, chains, finish, renew_shapes, replace, shape, writes

__all__ = ["pool_data_last"]

_aten = torch.ops.aten

# Operators that treat each plane of images (image, channel, height, width) by itself.
_BY_PLANE = {
    _aten.max_pool2d_with_indices.default,
    _aten.max_pool2d_with_indices_backward.default,
    _aten.avg_pool2d.default,
    _aten.avg_pool2d_backward.default,
    _aten._adaptive_avg_pool2d.default,
    _aten._adaptive_avg_pool2d_backward.default,
}


def pool_data_last(module: GraphModule) -> None:
    """Let pooling, in place, take the data of one chain and channel for its channels.

    Of images ``(chain * data, channel, height, width)`` with data last in memory this makes
    ``(chain * channel, data, height, width)`` in the layout that PyTorch calls channels last: it
    is there already, and runs along the data. Which plane is which does not matter to a pool.

    Parameters
    ----------
    module : GraphModule
        A function of a position ``(chain, dim)``, after `unfold_convolutions`; left alone where
        that pass found nothing.
    """
    if writes(module.graph.nodes) or all(n.target is not convolve for n in module.graph.nodes):
        return
    count = chains(module)
    for node in list(module.graph.nodes):
        images = shape(node.args[0]) if node.target in _BY_PLANE else ()
        if len(images) == 4 and images[0] % count == 0:
            with module.graph.inserting_before(node):
                _replace(node, count)
            module.graph.erase_node(node)
    renew_shapes(module)
    finish(module)


def _replace(node: Node, count: int) -> None:
    graph = node.graph
    arguments = [
        _swap(a, count, shape(a)[0] // count) if isinstance(a, Node) else a for a in node.args
    ]
    result = call(graph, node.target, *arguments, **node.kwargs)  # type: ignore[arg-type]
    if isinstance(node.meta["val"], torch.Tensor):
        replace(node, _swap(result, count, shape(node)[1]))
        return
    for user in list(node.users):
        part = call(graph, operator.getitem, result, user.args[1])
        replace(user, _swap(part, count, shape(user)[1]))
        graph.erase_node(user)


def _swap(images: Node, count: int, rows: int) -> Node:
    """Turn ``(chain * row, column, height, width)`` into ``(chain * column, row, ...)``."""
    graph = images.graph
    _, columns, *rest = shape(images)
    split = call(graph, _aten.reshape.default, images, [count, rows, columns, *rest])
    flipped = call(graph, _aten.transpose.int, split, 1, 2)
    return call(graph, _aten.reshape.default, flipped, [count * columns, rows, *rest])
