"""Each pass alone: it finds what it is for, leaves the rest, and changes no value."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule

from pyro_bnn.graph import trace_graph
from pyro_bnn.passes.biases import fold_biases
from pyro_bnn.passes.identities import drop_identities
from pyro_bnn.passes.inplace import reuse_memory
from pyro_bnn.passes.layout import lay_out_constants
from pyro_bnn.passes.onednn import use_onednn
from pyro_bnn.passes.products import lay_out_products
from pyro_bnn.passes.repeats import drop_repeats
from pyro_bnn.passes.sites import merge_sites
from pyro_bnn.passes.softmax import use_log_softmax
from pyro_bnn.passes.tanh import rational_tanh, use_rational_tanh

CHAINS, ROWS, INPUTS, UNITS, CLASSES = 3, 400, 33, 8, 5
SIZES = (UNITS * INPUTS, UNITS, CLASSES * UNITS, CLASSES)
PASSES = [
    drop_identities,
    drop_repeats,
    merge_sites,
    lay_out_products,
    fold_biases,
    use_log_softmax,
    use_onednn,
    use_rational_tanh,
    lay_out_constants,
    reuse_memory,
]


def energy(dtype):
    """Potential of a classifier with normal priors whose means and scales differ by site."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, INPUTS, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    scales = (0.5, 2.0, 0.7, 1.0)

    def potential(z):
        w1, b1, w2, b2 = torch.split(z, SIZES)
        hidden = torch.tanh(x @ w1.reshape(UNITS, INPUTS).T + b1)
        logits = hidden @ w2.reshape(CLASSES, UNITS).T + b2
        logits = logits - torch.logsumexp(logits, 1, keepdim=True)
        prior = z.new_zeros(())
        for site, (part, scale) in enumerate(zip((w1, b1, w2, b2), scales, strict=True)):
            mean = torch.full_like(part, 0.1 * site)
            prior = prior + (0.5 * ((part - mean) / torch.full_like(part, scale)) ** 2).sum(-1)
        return prior - torch.gather(logits, 1, y[:, None]).sum()

    return potential


def graph_of(dtype, *before):
    function = vmap(grad_and_value(energy(dtype)))
    graph = trace_graph(function, torch.zeros(CHAINS, sum(SIZES), dtype=dtype))
    for rewrite in before:
        rewrite(graph)
    return graph


def count(graph):
    return Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_stay_after_every_pass(dtype):
    graph = graph_of(dtype)
    z = 0.3 * torch.randn(CHAINS, sum(SIZES), dtype=dtype)
    expected = graph(z)
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    for rewrite in PASSES:
        rewrite(graph)
        for found, one in zip(graph(z), expected, strict=True):
            assert float((found - one).abs().max() / one.abs().max()) < tolerance, rewrite


def test_priors_of_all_sites_are_computed_at_once():
    graph = graph_of(torch.float64, drop_identities, drop_repeats)
    before = count(graph)
    merge_sites(graph)
    after = count(graph)
    # Subtraction of the mean, division by the scale, square and sum: once, not four times.
    assert before["aten.div.Tensor"] >= 4
    assert after["aten.div.Tensor"] <= before["aten.div.Tensor"] - 3
    assert after["aten.sub.Tensor"] == before["aten.sub.Tensor"] - 3
    assert after["aten.sum.dim_IntList"] <= before["aten.sum.dim_IntList"] - 3


def test_sites_whose_formulas_differ_stay_apart():
    def potential(z):
        a, b, c = torch.split(z, (4, 3, 2))
        return a.abs().sum() + b.exp().sum() + c.cos().sum() + 0 * (z @ z)

    graph = trace_graph(vmap(potential), torch.zeros(CHAINS, 9, dtype=torch.float64))
    drop_identities(graph)
    before = count(graph)
    merge_sites(graph)
    assert count(graph) == before


def test_biases_and_their_gradients_join_the_shared_product():
    graph = graph_of(torch.float64, lay_out_products, drop_identities)
    before = count(graph)
    fold_biases(graph)
    after = count(graph)
    # The bias of the first layer, and the sum of its gradient; the second layer is not shared.
    assert after["aten.add.Tensor"] == before["aten.add.Tensor"] - 1
    assert after["aten.sum.dim_IntList"] == before["aten.sum.dim_IntList"] - 1
    assert after["aten.mm.default"] == before["aten.mm.default"] == 2


def test_log_softmax_is_one_operator():
    graph = graph_of(torch.float64, lay_out_products, drop_identities, drop_repeats)
    assert count(graph)["aten.logsumexp.default"] == 1
    use_log_softmax(graph)
    assert count(graph)["aten.logsumexp.default"] == 0
    assert count(graph)["aten._log_softmax.default"] == 1


def test_onednn_takes_float32_only():
    float32 = graph_of(torch.float32, lay_out_products, drop_identities, fold_biases)
    use_onednn(float32)
    if torch.backends.mkldnn.is_available():
        # The activation of the first layer lies inside of its product.
        assert count(float32)["pyro_bnn.linear.default"] == 2
        assert count(float32)["aten.tanh.default"] == 0
    float64 = graph_of(torch.float64, lay_out_products, drop_identities, fold_biases)
    before = count(float64)
    use_onednn(float64)
    use_rational_tanh(float64)
    assert count(float64) == before


def test_memory_is_reused_but_never_that_of_inputs_constants_and_results():
    big = torch.ones(100, 100)

    def function(z):
        kept = z * 2
        changed = (kept + 1).exp() * big
        return kept, changed.sum(), z + 1

    graph = trace_graph(function, torch.zeros(100, 100))
    reuse_memory(graph)
    written = [n for n in graph.graph.nodes if n.target is torch.ops.aten.exp.out]
    assert len(written) == 1
    z = torch.rand(100, 100)
    before = z.clone()
    for _ in range(2):
        found, expected = graph(z), function(z)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    assert torch.equal(z, before)
    assert torch.equal(big, torch.ones(100, 100))


def test_an_operand_whose_view_is_read_later_is_not_written_over():
    def function(z):
        whole = z * 2
        row = whole[3:5]
        changed = whole.exp()
        return changed.sum() + row.sum()

    graph = trace_graph(function, torch.zeros(100, 100))
    reuse_memory(graph)
    z = torch.rand(100, 100)
    torch.testing.assert_close(graph(z), function(z))


def test_a_matrix_that_meets_its_own_transpose_is_not_written_over():
    def function(z):
        whole = z * 2
        return (whole + whole.T).cos()

    graph = trace_graph(function, torch.zeros(100, 100))
    reuse_memory(graph)
    z = torch.rand(100, 100)
    torch.testing.assert_close(graph(z), function(z))


@pytest.mark.parametrize("rewrite", PASSES[:3], ids=lambda rewrite: rewrite.__name__)
def test_graphs_that_write_are_left_alone(rewrite):
    def function(z):
        first = z.view(6) * 1
        first.add_(1)
        return first * 1 + z.view(6)

    graph = trace_graph(function, torch.zeros(6))
    before = copy.deepcopy(graph.graph)
    rewrite(graph)
    assert str(graph.graph) == str(before)


def test_rational_tanh_is_exact_to_four_roundings_everywhere():
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.logspace(-30, 0, 10_000)])
    exact = torch.tanh(x.double())
    error = (rational_tanh(x).double() - exact).abs() / exact.abs().clamp_min(1e-37)
    assert float(error.max()) < 4e-7
    assert float(rational_tanh(x).abs().max()) <= 1.0
    ends = rational_tanh(torch.tensor([float("inf"), float("-inf"), float("nan")]))
    assert ends[:2].tolist() == [1.0, -1.0]
    assert bool(ends[2].isnan())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="built without oneDNN")
def test_tanh_of_onednn_is_exact_to_two_roundings():
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.logspace(-6, 0, 10_000)])
    exact = torch.tanh(x.double())
    error = (torch.ops.pyro_bnn.tanh(x).double() - exact).abs() / exact.abs().clamp_min(1e-37)
    assert float(error.max()) < 2e-7


def test_a_copy_of_a_graph_shares_its_constants():
    graph = graph_of(torch.float64)
    other = GraphModule(graph, copy.deepcopy(graph.graph))
    names = {str(node.target) for node in other.graph.nodes if node.op == "get_attr"}
    assert names
    assert all(getattr(other, name) is getattr(graph, name) for name in names)
