"""Batched products: computed otherwise, with the same values."""

from __future__ import annotations

import torch
from torch.func import grad_and_value, vmap

from pyro_bnn.graph import trace_graph
from pyro_bnn.passes.products import lay_out_products

ROWS, INPUTS, UNITS, CLASSES, CHAINS = 50, 6, 4, 3, 5


def gradient_graph():
    x = torch.randn(ROWS, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sizes = (UNITS * INPUTS, CLASSES * UNITS)

    def loss(z):
        first, second = torch.split(z, sizes)
        hidden = torch.tanh(x @ first.reshape(UNITS, INPUTS).T)
        logits = hidden @ second.reshape(CLASSES, UNITS).T
        return torch.logsumexp(logits, dim=1).sum()

    z = torch.randn(CHAINS, sum(sizes), dtype=torch.float64)
    return trace_graph(vmap(grad_and_value(loss)), z), z, vmap(grad_and_value(loss))


def products(graph):
    found = [str(node.target) for node in graph.graph.nodes]
    return found.count("aten.mm.default"), found.count("aten.bmm.default")


def test_values_and_gradients_stay():
    graph, z, function = gradient_graph()
    lay_out_products(graph)
    for found, expected in zip(graph(z), function(z), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_first_layer_is_one_product_for_all_chains():
    graph, _, _ = gradient_graph()
    assert products(graph) == (0, 5)
    lay_out_products(graph)
    # Forward and backward of the first layer; three products of the second stay batched.
    assert products(graph) == (2, 3)


def test_data_come_last_in_memory():
    graph, z, _ = gradient_graph()
    lay_out_products(graph)
    activations = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            result = super().run_node(n)
            if n.target is torch.ops.aten.tanh.default:
                activations.append(result)
            return result

    Watch(graph).run(z)
    assert [tuple(a.shape) for a in activations] == [(CHAINS, ROWS, UNITS)]
    assert activations[0].stride(1) == 1
