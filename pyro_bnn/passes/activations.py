"""Biases and activations behind max-pooling, where they have fewer elements to treat."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import (
    call,
    finish,
    readers,
    renew_shapes,
    replace,
    shape,
    through_views,
    writes,
)

__all__ = ["activate_after_pooling"]

_aten = torch.ops.aten
_POOL = _aten.max_pool2d_with_indices.default
_UNPOOL = _aten.max_pool2d_with_indices_backward.default

# Increasing functions whose derivative is computed from their result.
_DERIVATIVES = {
    _aten.relu.default: _aten.threshold_backward.default,
    _aten.tanh.default: _aten.tanh_backward.default,
    _aten.sigmoid.default: _aten.sigmoid_backward.default,
}


@dataclass(frozen=True)
class _Pooled:
    """``pool(activation(x))`` and, where the graph has one, its backward pass."""

    pool: Node
    activation: Node
    unpool: Node | None
    slope: Node | None


def activate_after_pooling(module: GraphModule) -> None:
    """Turn ``pool(f(x + b))`` into ``f(pool(x) + b)``, in place, and its backward pass with it.

    An increasing activation and a bias that is the same over an image commute with the maximum.
    A pool of 2 x 2 leaves a quarter of the elements to the activation, to its derivative and to
    the sum that is the gradient of the bias.

    Parameters
    ----------
    module : GraphModule
        A graph after `join_views` and before `pool_data_last`.
    """
    if writes(module.graph.nodes):
        return
    for node in list(module.graph.nodes):
        found = _read(node) if node.target is _POOL else None
        if found is not None:
            _move_activation(found)
    finish(module)
    for node in list(module.graph.nodes):
        if node.target is _POOL:
            _move_bias(module, node)
    renew_shapes(module)
    finish(module)


def _read(pool: Node) -> _Pooled | None:
    """Understand a pool of an activation that nothing else reads, None for another."""
    source = pool.args[0]
    assert isinstance(source, Node)
    activation = through_views(source)
    if activation.target not in _DERIVATIVES or shape(activation)[-2:] != shape(source)[-2:]:
        return None
    found = readers(activation)
    derivative = _DERIVATIVES[activation.target]
    unpools = [user for user, _ in found if user.target is _UNPOOL]
    slopes = [user for user, _ in found if user.target is derivative]
    if not unpools and not slopes and len(found) == 1:
        return _Pooled(pool, activation, None, None)
    if len(found) != 3 or len(unpools) != 1 or len(slopes) != 1:
        return None
    (unpool,), (slope,) = unpools, slopes
    above = slope.args[0]
    assert isinstance(above, Node)
    if through_views(above) is not unpool or slope.args[1] is not activation:
        return None
    if len(readers(unpool)) != 1 or not _same_window(pool, unpool):
        return None
    return _Pooled(pool, activation, unpool, slope)


def _same_window(pool: Node, unpool: Node) -> bool:
    indices, of_pool, of_unpool = (
        through_views(argument)  # type: ignore[arg-type]
        for argument in (unpool.args[7], pool.args[0], unpool.args[1])
    )
    return (
        of_pool is of_unpool
        and indices.target is operator.getitem
        and tuple(indices.args) == (pool, 1)
    )


def _move_activation(found: _Pooled) -> None:
    graph = found.pool.graph
    pooled = _result(found.pool)
    if pooled is None:
        return
    inner = found.activation.args[0]
    target: Any = found.activation.target
    with graph.inserting_before(found.pool):
        x = call(graph, _aten.reshape.default, inner, [*shape(found.pool.args[0])])  # type: ignore[arg-type]
    # In the shape that it had, so that the chains stay an axis of their own.
    small = [*shape(found.activation)[:-2], *shape(pooled)[-2:]]
    with graph.inserting_before(pooled.next):
        split = call(graph, _aten.reshape.default, pooled, small)
        after = call(graph, target, split)
        joined = call(graph, _aten.reshape.default, after, [*shape(pooled)])
    replace(pooled, joined)
    split.update_arg(0, pooled)
    if found.unpool is not None and found.slope is not None:
        gradient, _, *window, indices = found.unpool.args
        rest = found.slope.args[2:]
        derivative: Any = found.slope.target
        with graph.inserting_before(found.unpool):
            above = call(graph, _aten.reshape.default, gradient, small)
            slope = call(graph, derivative, above, after, *rest)
            slopes = call(graph, _aten.reshape.default, slope, [*shape(pooled)])
            unpool = call(graph, _UNPOOL, slopes, x, *window, indices)
            whole = call(graph, _aten.reshape.default, unpool, [*shape(found.slope)])
        replace(found.slope, whole)
        graph.erase_node(found.slope)
    found.pool.update_arg(0, x)


def _result(pool: Node) -> Node | None:
    """Return the maxima of a pool, None where they are read in several places."""
    found = [user for user in pool.users if user.args[1] == 0]
    return found[0] if len(found) == 1 else None


def _move_bias(module: GraphModule, pool: Node) -> None:
    """``pool(x + b)`` for a bias with one element an image, over its height and width."""
    graph = module.graph
    source = pool.args[0]
    assert isinstance(source, Node)
    addition = through_views(source)
    pooled = _result(pool)
    if addition.target is not _aten.add.Tensor or addition.kwargs or pooled is None:
        return
    if shape(addition)[-2:] != shape(source)[-2:]:
        return
    first, second = addition.args
    if not (isinstance(first, Node) and isinstance(second, Node)):
        return
    bias, x = (first, second) if shape(second) == shape(addition) else (second, first)
    if shape(x) != shape(addition) or not _is_even(bias, addition):
        return
    found = [user for user, _ in readers(addition)]
    unpools = [user for user in found if user.target is _UNPOOL]
    if len(found) != 1 + len(unpools) or any(not _same_window(pool, u) for u in unpools):
        return
    with graph.inserting_before(pool):
        images = call(graph, _aten.reshape.default, x, [*shape(source)])
    small = [*shape(addition)[:-2], *shape(pooled)[-2:]]
    with graph.inserting_before(pooled.next):
        split = call(graph, _aten.reshape.default, pooled, small)
        added = call(graph, _aten.add.Tensor, split, bias)
        after = call(graph, _aten.reshape.default, added, [*shape(pooled)])
    replace(pooled, after)
    split.update_arg(0, pooled)
    pool.update_arg(0, images)
    for unpool in unpools:
        unpool.update_arg(1, images)
        _sum_before(graph, unpool, addition)


def _is_even(bias: Node, addition: Node) -> bool:
    """Whether a term of an addition has one element over the last two axes."""
    rank = len(shape(addition))
    padded = (1,) * (rank - len(shape(bias))) + shape(bias)
    return rank >= 3 and padded[-2:] == (1, 1)


def _sum_before(graph: Any, unpool: Node, addition: Node) -> None:
    """Sum over images what was before it was put in its place among zeros, not after."""
    gradient = unpool.args[0]
    assert isinstance(gradient, Node)
    for total, read in readers(unpool):
        if total.target is not _aten.sum.dim_IntList or shape(read) != shape(addition):
            continue
        rank = len(shape(read))
        axes = {int(axis) % rank for axis in total.args[1]}  # type: ignore[union-attr, arg-type]
        if not {rank - 2, rank - 1} <= axes:
            continue
        small = [*shape(read)[:-2], *shape(gradient)[-2:]]
        with graph.inserting_before(total):
            split = call(graph, _aten.reshape.default, gradient, small)
        total.update_arg(0, split)
