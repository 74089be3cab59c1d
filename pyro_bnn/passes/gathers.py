"""Minibatches picked out of the data by row number: whole rows at a time."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import attribute, call, finish, renew_shapes, replace, shape, writes

__all__ = ["pick_whole_rows"]

_aten = torch.ops.aten


def pick_whole_rows(module: GraphModule) -> None:
    """Turn ``data[rows]``, in place, into ``index_select``, which copies each row at once.

    General indexing finds the place of every element by itself, and takes several times as long.

    Parameters
    ----------
    module : GraphModule
        A graph one of whose inputs are the numbers of rows, counted from 0.
    """
    if writes(module.graph.nodes):
        return
    for node in list(module.graph.nodes):
        if node.target is _aten.index.Tensor and _picks_rows(module, node):
            _replace(node)
            module.graph.erase_node(node)
    renew_shapes(module)
    finish(module)


def _picks_rows(module: GraphModule, node: Node) -> bool:
    """Whether a constant is indexed by whole numbers that are an input, along its first axis."""
    source, numbers = node.args
    assert isinstance(source, Node)
    (rows,) = numbers if len(numbers) == 1 else (None,)  # type: ignore[arg-type, misc]
    return (
        isinstance(rows, Node)
        and rows.op == "placeholder"
        and rows.meta["val"].dtype == torch.int64
        and attribute(module, source) is not None
    )


def _replace(node: Node) -> None:
    graph = node.graph
    source, (rows,) = node.args  # type: ignore[misc]
    with graph.inserting_before(node):
        flat = call(graph, _aten.reshape.default, rows, [math.prod(shape(rows))])  # type: ignore[arg-type]
        picked = call(graph, _aten.index_select.default, source, 0, flat)
        replace(node, call(graph, _aten.reshape.default, picked, [*shape(node)]))
