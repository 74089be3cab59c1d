"""Convolutions of small networks: one small matrix product a chain instead of grouped ones."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.convolve import convolve, convolve_inputs, convolve_weights
from pyro_bnn.passes.rewrite import (
    call,
    chains,
    dependents,
    finish,
    renew_shapes,
    replace,
    shape,
    writes,
)

__all__ = ["unfold_convolutions"]

_aten = torch.ops.aten

# With so many channels on both sides the blocked kernels of oneDNN are the faster ones.
_CHANNELS, _UNITS = 16, 16


@dataclass(frozen=True)
class _Call:
    """A convolution in a graph, or its derivative, as one convolution a chain."""

    node: Node
    gradient: Node | None
    x: Node
    w: Node
    way: tuple[Any, ...]
    images: int
    chains: int

    def one_a_chain(self, filters: Node) -> Node:
        """Split filters ``(chain * unit, channel, height, width)`` into those of the chains."""
        rows, *rest = shape(filters)
        into = [self.chains, rows // self.chains, *rest]
        return call(self.node.graph, _aten.reshape.default, filters, into)

    def images_first(self, images: Node, count: int) -> Node:
        """Split ``(data, chain * channel, height, width)`` into the images of each chain."""
        graph = self.node.graph
        data, channels, *rest = shape(images)
        split = [data, count, channels // count, *rest]
        split_node = call(graph, _aten.reshape.default, images, split)
        return call(graph, _aten.transpose.int, split_node, 0, 1)

    def images_inside(self, images: Node) -> Node:
        """Undo `images_first`."""
        graph = self.node.graph
        count, data, channels, *rest = shape(images)
        flipped = call(graph, _aten.transpose.int, images, 0, 1)
        return call(graph, _aten.reshape.default, flipped, [data, count * channels, *rest])


def unfold_convolutions(module: GraphModule) -> None:
    """Replace, in place, what ``vmap`` makes of 2-d convolutions with few channels.

    It folds the chains into the channels, and calls a convolution in groups and its derivatives,
    which take several times as long as the matrix products in them. Afterwards each chain has
    its own products, by `convolve`, and data lie last in memory. Between two layouts activations
    would be copied: a graph with one convolution that is transposed, in 1-d or 3-d, or has many
    channels is left alone.

    Parameters
    ----------
    module : GraphModule
        A function of a position ``(chain, dim)``, after `join_views`.
    """
    if writes(module.graph.nodes):
        return
    batched = dependents(module)
    targets = (_aten.convolution.default, _aten.convolution_backward.default)
    nodes = [node for node in module.graph.nodes if node.target in targets]
    calls = [_read(node, chains(module), batched) for node in nodes]
    for found in calls:
        if found is None:
            return
    for found in calls:
        assert found is not None
        with module.graph.inserting_before(found.node):
            if found.gradient is None:
                _replace_forward(found)
            else:
                _replace_backward(found)
        module.graph.erase_node(found.node)
    renew_shapes(module)
    finish(module)


def _read(node: Node, count: int, batched: set[Node]) -> _Call | None:
    """Understand a convolution, None where it is of another kind."""
    if node.target is _aten.convolution.default:
        x, w, bias, stride, padding, dilation, transposed, _, groups = node.args
        gradient, wanted = None, [False, False, bias is not None]
    else:
        gradient, x, w, _, stride, padding, dilation, transposed, _, groups, wanted = node.args  # type: ignore[assignment]
    assert isinstance(x, Node)
    assert isinstance(w, Node)
    assert isinstance(groups, int)
    if w.meta["val"].dtype not in (torch.float32, torch.float64):
        return None
    if len(shape(w)) != 4 or len(stride) != 2 or transposed or wanted[2]:  # type: ignore[arg-type]
        return None
    shared = groups == 1 and x not in batched and not wanted[0]
    if shape(w)[0] % count or (not shared and groups % count):
        return None
    each = groups if shared else groups // count
    channels, units = shape(w)[1], shape(w)[0] // count // each
    if channels >= _CHANNELS or units > _UNITS:
        return None
    way = (list(stride), list(padding), list(dilation), each)  # type: ignore[arg-type]
    assert gradient is None or isinstance(gradient, Node)
    return _Call(node, gradient, x, w, way, 1 if shared else count, count)


def _replace_forward(found: _Call) -> None:
    x = found.images_first(found.x, found.images)
    result = call(found.node.graph, convolve, x, found.one_a_chain(found.w), *found.way)
    replace(found.node, found.images_inside(result))


def _replace_backward(found: _Call) -> None:
    graph = found.node.graph
    assert found.gradient is not None
    gradient = found.images_first(found.gradient, found.chains)
    for user in list(found.node.users):
        assert user.target is operator.getitem
        if user.args[1] == 0:
            w = found.one_a_chain(found.w)
            size = list(shape(found.x)[2:])
            slope = call(graph, convolve_inputs, gradient, w, size, *found.way)
            replace(user, found.images_inside(slope))
        else:
            x = found.images_first(found.x, found.images)
            kernel = list(shape(found.w)[2:])
            slope = call(graph, convolve_weights, gradient, x, kernel, *found.way)
            flat = call(graph, _aten.reshape.default, slope, list(shape(found.w)))
            replace(user, flat)
        graph.erase_node(user)
