"""Rows that are picked by number: copied whole, where their numbers are an input."""

from __future__ import annotations

import pytest
import torch
from torch.func import vmap

from pyro_bnn.graph import trace_graph
from pyro_bnn.passes.gathers import pick_whole_rows

aten = torch.ops.aten
CHAINS, ROWS, BATCH = 3, 9, 4


def targets(graph):
    return [node.target for node in graph.graph.nodes]


@pytest.mark.parametrize("shared", [False, True])
def test_minibatches_are_picked_by_whole_rows(shared):
    images, labels = torch.randn(ROWS, 2, 5), torch.randint(4, (ROWS,))

    def function(z, rows):
        return z * images[rows].sum((1, 2)), labels[rows]

    z = torch.randn(CHAINS, BATCH)
    rows = torch.randint(ROWS, (BATCH,) if shared else (CHAINS, BATCH))
    graph = trace_graph(vmap(function, in_dims=(0, None if shared else 0)), z, rows)
    assert targets(graph).count(aten.index.Tensor) == 2
    expected = graph(z, rows)
    pick_whole_rows(graph)
    assert targets(graph).count(aten.index_select.default) == 2
    assert aten.index.Tensor not in targets(graph)
    for other in (rows, ROWS - 1 - rows):
        again = vmap(function, in_dims=(0, None if shared else 0))(z, other)
        for found, want in zip(graph(z, other), again, strict=True):
            torch.testing.assert_close(found, want)
    for found, want in zip(graph(z, rows), expected, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=0)


def test_other_indexing_is_left_alone():
    table, groups = torch.randn(ROWS, 5), torch.randint(5, (BATCH,))

    def function(z, rows):
        return z[rows % BATCH] + table[:, groups].sum(0) + table[rows, groups]

    z, rows = torch.randn(CHAINS, BATCH), torch.randint(ROWS, (CHAINS, BATCH))
    graph = trace_graph(vmap(function), z, rows)
    before = targets(graph)
    assert aten.index.Tensor in before
    pick_whole_rows(graph)
    assert targets(graph) == before
