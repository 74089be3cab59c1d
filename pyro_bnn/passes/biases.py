"""Biases of a layer that all chains feed the same inputs: one more input that is always one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import SAME_ORDER, attribute, call, constant, finish, replace, shape

__all__ = ["fold_biases"]

_aten = torch.ops.aten


def fold_biases(module: GraphModule) -> None:
    """Turn ``W X + b`` into ``[W b] [X; 1]``, in place, where X is the same for all chains.

    The bias is then added, and its gradient summed over the data, inside of the matrix product
    instead of in a pass over the activations of its own.

    Parameters
    ----------
    module : GraphModule
        A graph after `lay_out_products`.
    """
    for node in list(module.graph.nodes):
        if node.target is _aten.mm.default:
            values = attribute(module, node.args[1])
            if values is not None and values.is_floating_point():
                _fold_forward(module, node, values)
                _fold_backward(module, node, values)
    finish(module)


def _fold_forward(module: GraphModule, product: Node, values: Tensor) -> None:
    """``view(tall @ X)`` (chain, unit, data), transposed, plus a bias (chain, 1, unit)."""
    graph = module.graph
    view = _only_user(product)
    flipped = None if view is None else _only_user(view)
    addition = None if flipped is None else _only_user(flipped)
    if (
        view is None
        or flipped is None
        or addition is None
        or view.target not in SAME_ORDER
        or flipped.target is not _aten.transpose.int
        or addition.target is not _aten.add.Tensor
        or addition.kwargs
        or len(shape(view)) != 3
        or shape(addition) != shape(flipped)
    ):
        return
    chains, units, _ = shape(view)
    first, second = addition.args
    bias = second if first is flipped else first
    if not isinstance(bias, Node) or shape(bias) != (chains, 1, units):
        return
    tall = product.args[0]
    assert isinstance(tall, Node)
    with graph.inserting_before(addition):
        column = call(graph, _aten.reshape.default, bias, [chains * units, 1])
        wide = call(graph, _aten.cat.default, [tall, column], 1)
        inputs = constant(module, torch.cat([values, torch.ones_like(values[:1])]))
        flat = call(graph, _aten.mm.default, wide, inputs)
        whole = call(graph, _aten.view.default, flat, list(shape(view)))
        result = call(graph, _aten.transpose.int, whole, 1, 2)
    replace(addition, result)
    for old in (addition, flipped, view, product):
        graph.erase_node(old)


def _fold_backward(module: GraphModule, product: Node, values: Tensor) -> None:
    """``view(reshape(g') @ X)`` for g (chain, data, unit) of which the sum over data is read."""
    if product.graph is not module.graph or not product.users:
        return
    graph = module.graph
    tall, view = product.args[0], _only_user(product)
    assert isinstance(tall, Node)
    flipped = tall.args[0] if tall.target in SAME_ORDER else None
    if not isinstance(flipped, Node) or flipped.target is not _aten.transpose.int or view is None:
        return
    gradient = flipped.args[0]
    assert isinstance(gradient, Node)
    total = next(
        (
            user
            for user in gradient.users
            if user.target is _aten.sum.dim_IntList
            and user.args[1] in ([1], [-2])
            and not user.kwargs
        ),
        None,
    )
    chains, data, units = shape(gradient) if len(shape(gradient)) == 3 else (0, 0, 0)
    if total is None or shape(tall) != (chains * units, data) or shape(flipped)[1] != units:
        return
    # The sum over the data may be read before the product is: both move to where the first is.
    with graph.inserting_before(min(product, total)):
        across = call(graph, _aten.transpose.int, gradient, 1, 2)
        rows = call(graph, _aten.reshape.default, across, [chains * units, data])
        inputs = constant(module, torch.cat([values, torch.ones_like(values[:, :1])], dim=1))
        flat = call(graph, _aten.mm.default, rows, inputs)
        weights = call(graph, _aten.slice.Tensor, flat, 1, 0, values.shape[1])
        whole = call(graph, _aten.reshape.default, weights, list(shape(view)))
        bias = call(graph, _aten.slice.Tensor, flat, 1, values.shape[1], values.shape[1] + 1)
        summed = call(graph, _aten.reshape.default, bias, list(shape(total)))
    replace(view, whole)
    replace(total, summed)
    for old in (view, product, total):
        graph.erase_node(old)


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
