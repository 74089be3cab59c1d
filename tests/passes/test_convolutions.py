"""Convolutions by matrix products a chain: what ATen's compute, for every way to lay a filter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule

from pyro_bnn import LogDensity, lift
from pyro_bnn.graph import trace_graph
from pyro_bnn.handlers import without_validation
from pyro_bnn.nn import Normal, categorical
from pyro_bnn.nn.architectures import lenet5, optunet
from pyro_bnn.passes import patches
from pyro_bnn.passes.convolve import convolve, convolve_inputs, convolve_weights
from pyro_bnn.passes.convolve_pool import convolve_pool, pooled_inputs, pooled_weights
from pyro_bnn.passes.pipeline import optimise, prepare_for_compiler

aten = torch.ops.aten
CHAINS, ROWS = 3, 7

# Stride, padding, dilation, groups.
WAYS = [
    ([1, 1], [0, 0], [1, 1], 1),
    ([2, 1], [1, 0], [1, 1], 1),
    ([1, 3], [2, 2], [2, 1], 2),
    ([3, 2], [0, 3], [1, 2], 2),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("band", [1, 13_000, 2**18])
def test_kernels_compute_a_convolution_and_its_derivatives(way, shared, band, monkeypatch):
    monkeypatch.setattr(patches, "_BAND", band)
    monkeypatch.setattr(patches, "_SET", band)
    way = (*way[:3], 1) if shared else way
    groups = way[3]
    units = 20 if shared else 4
    x = torch.randn(1 if shared else CHAINS, ROWS, 2 * groups, 9, 11, dtype=torch.float64)
    w = torch.randn(CHAINS, units, 2, 3, 2, dtype=torch.float64)
    x.requires_grad_(), w.requires_grad_()
    each = x.expand(CHAINS, *x.shape[1:])
    pairs = zip(each, w, strict=True)
    expected = torch.stack([nn.functional.conv2d(a, b, None, *way) for a, b in pairs])
    gradient = torch.randn_like(expected)
    of_x, of_w = torch.autograd.grad(expected, (x, w), gradient)
    with torch.no_grad():
        torch.testing.assert_close(convolve(x, w, *way), expected)
        found = convolve_weights(gradient, x, [3, 2], *way)
        torch.testing.assert_close(found, of_w)
        if not shared:
            found = convolve_inputs(gradient, w, [9, 11], *way)
            torch.testing.assert_close(found, of_x)


# Stride and padding, groups, and window and step of the pool.
POOLED = [
    ([1, 1], [0, 0], 1, [2, 2], [2, 2]),
    ([2, 1], [1, 0], 1, [3, 2], [2, 1]),
    ([1, 3], [2, 2], 2, [2, 1], [2, 2]),
    ([1, 1], [0, 1], 2, [3, 3], [3, 3]),
    ([1, 1], [0, 0], 1, [5, 5], [5, 5]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", POOLED, ids=str)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("band", [1, 2**18])
def test_kernels_compute_a_pooled_convolution(way, shared, band, dtype, monkeypatch):
    monkeypatch.setattr(patches, "_BAND", band)
    monkeypatch.setattr(patches, "_SET", band)
    stride, padding, groups, window, step = way
    groups = 1 if shared else groups
    way = (stride, padding, groups, window, step)
    # Whole numbers, so that windows have several maxima: the first is the one that counts.
    x = torch.randint(-2, 3, (1 if shared else CHAINS, ROWS, 2 * groups, 12, 13)).to(dtype)
    w = torch.randint(-2, 3, (CHAINS, 4, 2, 3, 2)).to(dtype)
    x.requires_grad_(), w.requires_grad_()
    pairs = zip(x.expand(CHAINS, *x.shape[1:]), w, strict=True)
    results = [nn.functional.conv2d(a, b, None, stride, padding, 1, groups) for a, b in pairs]
    expected = torch.stack([nn.functional.max_pool2d(r, window, step) for r in results])
    gradient = torch.randn_like(expected)
    of_x, of_w = torch.autograd.grad(expected, (x, w), gradient)
    # Sums of up to 700 terms, in another order.
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-11}
    with torch.no_grad():
        maxima, winners = convolve_pool(x, w, *way)
        torch.testing.assert_close(maxima, expected)
        found = pooled_weights(gradient, winners, x, [3, 2], *way)
        torch.testing.assert_close(found, of_w, **close)
        if not shared:
            found = pooled_inputs(gradient, winners, w, [12, 13], *way)
            torch.testing.assert_close(found, of_x, **close)


@pytest.mark.parametrize("way", POOLED, ids=str)
def test_shapes_of_pooled_convolutions_without_data(way):
    groups = way[2]
    x, w = torch.randn(CHAINS, ROWS, 2 * groups, 12, 13), torch.randn(CHAINS, 4, 2, 3, 2)
    maxima, winners = convolve_pool(x, w, *way)
    same_layout(convolve_pool, x, w, *way)
    same_layout(pooled_weights, maxima, winners, x, [3, 2], *way)
    same_layout(pooled_inputs, maxima, winners, w, [12, 13], *way)


def same_layout(kernel, *arguments):
    real = kernel(*arguments)
    empty = kernel(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments))
    pairs = [(real, empty)] if isinstance(real, torch.Tensor) else zip(real, empty, strict=True)
    for one, other in pairs:
        assert other.shape == one.shape
        assert other.stride() == one.stride()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_shapes_without_data_are_those_of_the_results(way):
    groups = way[3]
    x, w = torch.randn(CHAINS, ROWS, 2 * groups, 9, 11), torch.randn(CHAINS, 4, 2, 3, 2)
    result = convolve(x, w, *way)
    cases = [
        (convolve, (x, w, *way)),
        (convolve_weights, (result, x, [3, 2], *way)),
        (convolve_inputs, (result, w, [9, 11], *way)),
    ]
    for kernel, arguments in cases:
        same_layout(kernel, *arguments)


def test_gradient_of_many_shared_filters_has_the_layout_that_was_said():
    x, gradient = torch.randn(1, ROWS, 2, 9, 11), torch.randn(CHAINS, ROWS, 20, 7, 10)
    same_layout(convolve_weights, gradient, x, [3, 2], [1, 1], [0, 0], [1, 1], 1)


def network(*layers, channels=2, size=(12, 11)):
    return nn.Sequential(*layers), (channels, *size)


NETWORKS = {
    "strides": network(
        *(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 3, (2, 3), stride=(1, 2))),
        *(nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)),
    ),
    "groups and dilation": network(
        *(nn.Conv2d(2, 4, 3, padding=2, dilation=2), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, groups=2, padding="same"), nn.GELU()),
        *(nn.Conv2d(6, 6, 2, groups=6), nn.Flatten(), nn.LazyLinear(3)),
    ),
    "pools that overlap": network(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)),
        *(nn.Conv2d(4, 5, 2), nn.Tanh(), nn.MaxPool2d(2, stride=1), nn.Sigmoid()),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "pool of a sigmoid": network(
        *(nn.Conv2d(2, 4, 3), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 5, 2, bias=False), nn.Tanh(), nn.MaxPool2d((2, 1), ceil_mode=True)),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "pools of strides": network(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.MaxPool2d((2, 1))),
        *(nn.Conv2d(4, 6, (2, 3), groups=2), nn.ReLU(), nn.MaxPool2d((1, 2))),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "averages": network(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 5, 2), nn.Tanh(), nn.AdaptiveAvgPool2d((2, 1))),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "activation read twice": network(
        *(nn.Conv2d(2, 4, 3), nn.LeakyReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2, stride=1)),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "many channels": network(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 20, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 3, 2), nn.Flatten(), nn.LazyLinear(3)),
    ),
    "one dimension": network(
        *(nn.Flatten(2), nn.Conv1d(2, 4, 5), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(4, 3, 3)),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "transposed": network(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2)),
        *(nn.Flatten(), nn.LazyLinear(3)),
    ),
    "OptuNet": (optunet(3), (1, 28, 28)),
    "LeNet-5": (lenet5(3), (1, 28, 28)),
}
LEFT_ALONE = {"many channels", "one dimension", "transposed"}
FUSED = {"pool of a sigmoid", "pools of strides", "OptuNet", "LeNet-5"}


def density(name, dtype=torch.float64):
    net, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, *shape, dtype=torch.float64, generator=generator).to(dtype)
    net = copy.deepcopy(net).to(dtype)
    net(x)
    bnn = lift(net, prior=Normal(scale=1.0))
    return LogDensity(lambda x, y=None: categorical(bnn(x), y), x, torch.arange(ROWS) % 3)


def traced(density, *indices):
    rows = 0 if indices else None

    def potential(z, *indices):
        return density._potential(z, *indices) if indices else density._potential(z, None)

    def function(z, *indices):
        with without_validation():
            axes = (0, rows) if indices else 0
            gradient, value = vmap(grad_and_value(potential), in_dims=axes)(z, *indices)
        return value, gradient

    return trace_graph(function, torch.zeros(CHAINS, density.dim, dtype=density.dtype), *indices)


def agree(plain, passes, *inputs):
    rewritten = GraphModule(plain, copy.deepcopy(plain.graph))
    passes(rewritten, torch.device("cpu"))
    with torch.no_grad():
        for _ in range(2):
            for one, other in zip(rewritten(*inputs), plain(*inputs), strict=True):
                assert float((one - other).abs().amax() / other.abs().amax()) < 1e-12
    return {node.target for node in rewritten.graph.nodes}


@pytest.mark.parametrize("minibatch", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_was_traced(name, minibatch):
    own = density(name)
    generator = torch.Generator().manual_seed(1)
    indices = [torch.randint(ROWS, (CHAINS, 5), generator=generator)] if minibatch else []
    plain = traced(own, *indices)
    z = torch.randn(CHAINS, own.dim, dtype=torch.float64, generator=generator)
    for passes in (optimise, prepare_for_compiler):
        targets = agree(plain, passes, z, *indices)
        left = aten.convolution.default in targets or aten.convolution_backward.default in targets
        assert left == (name in LEFT_ALONE)
        assert (convolve in targets or convolve_pool in targets) != left
        assert (convolve_pool in targets) == (name in FUSED)


@pytest.mark.parametrize("name", ["pools that overlap", "pool of a sigmoid", "LeNet-5"])
def test_pools_come_before_biases_and_activations(name):
    own = density(name)
    module = traced(own)
    optimise(module, torch.device("cpu"))
    pools = [n for n in module.graph.nodes if n.target is aten.max_pool2d_with_indices.default]
    fused = [n for n in module.graph.nodes if n.target is convolve_pool]
    assert len(pools) + len(fused) == 2
    for pool in pools:
        source = pool.args[0]
        while source.target in (aten.reshape.default, aten.transpose.int):
            source = source.args[0]
        assert source.target is convolve
    # The pools read data that lie last in memory, where they are.
    for pool in pools:
        source = pool.args[0].meta["val"]
        assert source.is_contiguous(memory_format=torch.channels_last)


def test_one_chain_is_one_chain():
    own = density("averages")
    z = torch.randn(1, own.dim, dtype=torch.float64)
    value, gradient = own.value_and_grad(z)
    values, gradients = own.value_and_grad(z.expand(4, -1).contiguous())
    assert own.gradient_path == "ATen graph, eager"
    torch.testing.assert_close(value.expand(4), values)
    torch.testing.assert_close(gradient.expand(4, -1), gradients)
