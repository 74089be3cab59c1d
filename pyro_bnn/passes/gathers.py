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
        found = _rows_by_number(module, node) if node.target is _aten.index.Tensor else None
        if found is not None:
            _replace(node, *found)
            module.graph.erase_node(node)
    renew_shapes(module)
    finish(module)


def _rows_by_number(module: GraphModule, node: Node) -> tuple[Node, Node] | None:
    """Return data and row numbers where an input indexes a constant along its first axis."""
    source, numbers = node.args
    assert isinstance(source, Node)
    assert isinstance(numbers, list | tuple)
    rows = numbers[0]
    if len(numbers) != 1 or not isinstance(rows, Node) or rows.op != "placeholder":
        return None
    if rows.meta["val"].dtype != torch.int64 or attribute(module, source) is None:
        return None
    return source, rows


def _replace(node: Node, source: Node, rows: Node) -> None:
    graph = node.graph
    with graph.inserting_before(node):
        flat = call(graph, _aten.reshape.default, rows, [math.prod(shape(rows))])
        picked = call(graph, _aten.index_select.default, source, 0, flat)
        replace(node, call(graph, _aten.reshape.default, picked, [*shape(node)]))
