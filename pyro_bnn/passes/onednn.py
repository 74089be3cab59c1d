"""Products with data that all chains share, and hyperbolic tangents, by oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import SAME_ORDER, call, finish, replace, shape

__all__ = ["use_onednn"]

_aten = torch.ops.aten

_library = torch.library.Library("pyro_bnn", "DEF")
_library.define("linear(Tensor left, Tensor right, str activation) -> Tensor")
_library.define("tanh(Tensor x) -> Tensor")


def _linear(left: Tensor, right: Tensor, activation: str) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, activation, [], "")
    return product


def _linear_shape(left: Tensor, right: Tensor, activation: str) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


def _tanh(x: Tensor) -> Tensor:
    return torch.tanh_(x.to_mkldnn()).to_dense()


_library.impl("linear", _linear, "CPU")
_library.impl("linear", _linear_shape, "Meta")
_library.impl("tanh", _tanh, "CPU")
_library.impl("tanh", lambda x: torch.empty_like(x), "Meta")

_ACTIVATIONS = {_aten.relu.default: "relu", _aten.tanh.default: "tanh"}
# Below these sizes the default library wins.
_INNER = 32
_ELEMENTS = 4096


def use_onednn(module: GraphModule, *, activations: bool = True) -> None:
    """Call oneDNN, in place, for what it does faster than the default library, in float32.

    Matrix products of two matrices, with the activation that follows inside of
    the product; and large hyperbolic tangents, which it computes to 1e-7 of their value. Another
    dtype or a build without oneDNN leave the graph as it is.

    Parameters
    ----------
    module : GraphModule
        A graph after `lay_out_products`, of tensors on the CPU.
    activations : bool, default True
        Whether to take on activations too; a compiler joins them to other work.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for node in list(module.graph.nodes):
        if node.target is _aten.mm.default and _is_float32(node):
            _replace_product(module, node, activations)
    for node in list(module.graph.nodes):
        if activations and node.target is _aten.tanh.default and _is_float32(node):
            _replace_tanh(module, node)
    finish(module)


def _is_float32(node: Node) -> bool:
    return bool(node.meta["val"].dtype == torch.float32)


def _replace_product(module: GraphModule, node: Node, activations: bool) -> None:
    graph = module.graph
    left, right = node.args
    assert isinstance(right, Node)
    inner, columns = shape(right)
    behind = _activation(node) if activations and columns > inner else None
    if inner < (_INNER if behind is None else 1):
        return
    name = "none" if behind is None else _ACTIVATIONS[behind.target]  # type: ignore[index]
    with graph.inserting_before(node):
        product = call(graph, torch.ops.pyro_bnn.linear.default, left, right, name)
    replace(node, product)
    graph.erase_node(node)
    if behind is not None:
        source = behind.args[0]
        assert isinstance(source, Node)
        replace(behind, source)
        graph.erase_node(behind)


def _activation(node: Node) -> Node | None:
    """Return the activation that alone reads a product, through views and transpositions."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.target in _ACTIVATIONS:
            return node
        if node.target not in SAME_ORDER and node.target is not _aten.transpose.int:
            return None
    return None


def _replace_tanh(module: GraphModule, node: Node) -> None:
    graph = module.graph
    value = node.meta["val"]
    source = node.args[0]
    assert isinstance(source, Node)
    if value.numel() < _ELEMENTS:
        return
    flips = len(shape(node)) == 3 and value.stride()[1] < value.stride()[2]
    with graph.inserting_before(node):
        if flips:
            source = call(graph, _aten.transpose.int, source, 1, 2)
        result = call(graph, torch.ops.pyro_bnn.tanh.default, source)
        if flips:
            result = call(graph, _aten.transpose.int, result, 1, 2)
    replace(node, result)
    graph.erase_node(node)
