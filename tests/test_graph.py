"""Traced graphs: the same numbers, constants folded, nothing random or stale."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad_and_value, vmap

from pyro_bnn.graph import trace_graph


def calls(graph):
    return [node for node in graph.graph.nodes if node.op == "call_function"]


def test_graph_computes_what_the_function_computes_anywhere():
    matrix = torch.randn(4, 3, dtype=torch.float64)

    def energy(z):
        return torch.logsumexp(torch.tanh(matrix @ z), 0) + 0.5 * z.square().sum()

    function = vmap(grad_and_value(energy))
    graph = trace_graph(function, torch.zeros(5, 3, dtype=torch.float64))
    for _ in range(3):
        z = torch.randn(5, 3, dtype=torch.float64)
        for found, expected in zip(graph(z), function(z), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_does_not_depend_on_an_input_is_computed_once():
    data = torch.arange(6.0)

    def function(z):
        constant = (data.cos() + torch.ones(6) * 2).log().sum()
        return z * constant

    graph = trace_graph(function, torch.zeros(2))
    assert len(calls(graph)) == 1
    torch.testing.assert_close(graph(torch.ones(2)), function(torch.ones(2)))


def test_unused_results_are_dropped():
    def function(z):
        z.exp().cos()
        return z + 1

    assert len(calls(trace_graph(function, torch.zeros(3)))) == 1


def test_random_draws_are_never_folded():
    graph = trace_graph(lambda z: z + torch.rand(3), torch.zeros(3))
    assert not torch.equal(graph(torch.zeros(3)), graph(torch.zeros(3)))


def test_constants_that_are_written_into_are_never_folded():
    """An accumulator starts anew at each call."""

    def function(z):
        total = torch.zeros(3)
        total += z
        total.mul_(2)
        return total

    graph = trace_graph(function, torch.ones(3))
    for _ in range(2):
        torch.testing.assert_close(graph(torch.ones(3)), torch.full((3,), 2.0))
    torch.testing.assert_close(graph(3 * torch.ones(3)), torch.full((3,), 6.0))


def test_views_of_constants_that_are_written_into_are_never_folded():
    def function(z):
        table = torch.zeros(2, 3)
        row = table[0]
        row.add_(z)
        return table.sum() + row.sum()

    graph = trace_graph(function, torch.ones(3))
    for _ in range(2):
        assert float(graph(torch.ones(3))) == 6.0


def test_pre_dispatch_keeps_composite_operators_whole():
    weight = torch.randn(2, 3)

    def function(z):
        return torch.nn.functional.linear(z, weight)

    names = [
        {str(node.target) for node in calls(trace_graph(function, torch.ones(4, 3), **kind))}
        for kind in ({"pre_dispatch": True}, {})
    ]
    assert "aten.linear.default" in names[0]
    assert "aten.linear.default" not in names[1]


def test_a_branch_on_a_value_cannot_be_traced_under_vmap():
    def function(z):
        return z if z > 0 else -z

    with pytest.raises(RuntimeError, match="control flow"):
        trace_graph(vmap(function), torch.ones(3))


def test_constants_that_only_take_a_shape_are_folded():
    def function(z):
        return z * torch.full_like(z, 3.0) + z.new_full((3,), 2.0) + torch.ones_like(z)

    graph = trace_graph(function, torch.zeros(3))
    assert len(calls(graph)) == 3
    torch.testing.assert_close(graph(torch.ones(3)), torch.full((3,), 6.0))
