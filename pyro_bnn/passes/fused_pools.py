"""Max-pooling joined with the convolution before it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.convolve import convolve, convolve_inputs, convolve_weights
from pyro_bnn.passes.convolve_pool import (
    MOST_PIXELS,
    convolve_pool,
    pooled_inputs,
    pooled_weights,
    work_ratio,
)
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

__all__ = ["fuse_pools"]

_aten = torch.ops.aten
_TRANSPOSE = _aten.transpose.int

# The multiplications of a pooled convolution over those of the convolution alone up to which the
# better shape of its products pays for them.
_MOST_WORK = 2.5


@dataclass(frozen=True)
class _Pooled:
    """``pool(convolve(x, w))`` and, where the graph has them, the derivatives of both."""

    convolution: Node
    pool: Node
    window: list[int]
    step: list[int]
    unpool: Node | None
    slopes: list[Node]


def fuse_pools(module: GraphModule) -> None:
    """Replace, in place, convolutions whose results only a max-pool reads, by `convolve_pool`.

    The result of the convolution, the pool's table of indices and the gradient of the one,
    which is zero but for one pixel of each window, are never in memory as a whole. Pools with
    padding, dilation or a last window that stands out stay as they are, and so do
    convolutions with dilation and those that something else reads.

    Parameters
    ----------
    module : GraphModule
        A function of a position ``(chain, dim)``, after `pool_data_last` and `join_views`.
    """
    if writes(module.graph.nodes):
        return
    pools = [n for n in module.graph.nodes if n.target is _aten.max_pool2d_with_indices.default]
    found = [pooled for pooled in map(_read, pools) if pooled is not None]
    for pooled in found:
        _replace(pooled)
    if not found:
        return
    renew_shapes(module)
    finish(module)


def _read(pool: Node) -> _Pooled | None:
    """Understand a pool right behind a convolution that nothing else reads, None for another."""
    images = pool.args[0]
    assert isinstance(images, Node)
    convolution = _planes(images)
    if convolution is None or convolution.target is not convolve:
        return None
    _, w, stride, _, dilation, _ = convolution.args
    assert isinstance(w, Node)
    window, step, padding, spread, ceil = _arguments(pool)
    if any(padding) or spread != [1, 1] or ceil or list(dilation) != [1, 1]:  # type: ignore[arg-type]
        return None
    if not 1 < window[0] * window[1] <= MOST_PIXELS:
        return None
    if work_ratio(shape(w)[3:], list(stride), window, step) > _MOST_WORK:  # type: ignore[arg-type]
        return None
    if any(user.args[1] not in (0, 1) for user in pool.users):
        return None
    indices = [
        reader
        for user in pool.users
        if user.args[1] == 1
        for reader, _ in readers(user, _TRANSPOSE)
    ]
    others = [reader for reader, _ in readers(convolution, _TRANSPOSE) if reader is not pool]
    if not indices and not others:
        return _Pooled(convolution, pool, window, step, None, [])
    unpool = indices[0] if indices else None
    if (
        unpool is None
        or unpool.target is not _aten.max_pool2d_with_indices_backward.default
        or any(reader is not unpool for reader in indices + others)
        or _planes(unpool.args[1]) is not convolution  # type: ignore[arg-type]
    ):
        return None
    slopes = [reader for reader, _ in readers(unpool, _TRANSPOSE)]
    for slope in slopes:
        if slope.target not in (convolve_inputs, convolve_weights):
            return None
        gradient = slope.args[0]
        assert isinstance(gradient, Node)
        if gradient in slope.args[1:] or _chains_first(gradient) is not unpool:
            return None
        if slope.args[3:] != convolution.args[2:]:
            return None
    return _Pooled(convolution, pool, window, step, unpool, slopes)


def _arguments(pool: Node) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """Return window, step, padding, dilation and whether the last window may stand out."""
    window = pool.args[1]
    given: list[Any] = [*pool.args[2:], *([], [0, 0], [1, 1], False)[len(pool.args) - 2 :]]
    step, padding, dilation, ceil = given
    pairs = [_pair(value) for value in (window, step or window, padding, dilation)]
    return pairs[0], pairs[1], pairs[2], pairs[3], bool(ceil)


def _pair(value: Any) -> list[int]:
    values = list(value)
    return values * 2 if len(values) == 1 else values


def _planes(images: Node) -> Node | None:
    """Follow ``(chain * unit, data, height, width)`` back to ``(chain, data, unit, ...)``."""
    flipped = through_views(images)
    if flipped.target is not _TRANSPOSE or tuple(flipped.args[1:]) != (1, 2):
        return None
    chains, units, *rest = shape(flipped)
    source = flipped.args[0]
    assert isinstance(source, Node)
    return source if shape(images) == (chains * units, *rest) and len(rest) == 3 else None


def _chains_first(images: Node) -> Node | None:
    """Follow ``(chain, data, unit, height, width)`` back to ``(chain * unit, data, ...)``."""
    if images.target is not _TRANSPOSE or tuple(images.args[1:]) != (1, 2):
        return None
    split = images.args[0]
    assert isinstance(split, Node)
    source = through_views(split)
    chains, units, *rest = shape(split)
    return source if len(rest) == 3 and shape(source) == (chains * units, *rest) else None


def _replace(found: _Pooled) -> None:
    graph = found.pool.graph
    x, w, stride, padding, _, groups = found.convolution.args
    way = (stride, padding, groups, found.window, found.step)
    with graph.inserting_before(found.pool):
        both = call(graph, convolve_pool, x, w, *way)
        maxima, winners = (call(graph, operator.getitem, both, place) for place in (0, 1))
        chains, data, units, *size = shape(maxima)
        flipped = call(graph, _TRANSPOSE, maxima, 1, 2)
        planes = call(graph, _aten.reshape.default, flipped, [chains * units, data, *size])
    for user in list(found.pool.users):
        if user.args[1] == 0:
            replace(user, planes)
    for slope in found.slopes:
        assert found.unpool is not None
        above, (_, kept, sizes) = found.unpool.args[0], slope.args[:3]
        with graph.inserting_before(slope):
            split = call(graph, _aten.reshape.default, above, [chains, units, data, *size])
            gradient = call(graph, _TRANSPOSE, split, 1, 2)
            kernel = pooled_inputs if slope.target is convolve_inputs else pooled_weights
            replace(slope, call(graph, kernel, gradient, winners, kept, sizes, *way))
