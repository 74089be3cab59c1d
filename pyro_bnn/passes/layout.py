"""Constants laid out in memory as the activations that they meet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import attribute, constant, finish, renew_shapes, shape

__all__ = ["lay_out_constants"]


def lay_out_constants(module: GraphModule) -> None:
    """Give constants of element-wise operators the layout of the other operand, in place.

    A one-hot table of labels ``(chain, data, class)`` that meets activations whose data axis lies
    last in memory is otherwise read across its rows. What repeats for every chain is kept once.

    Parameters
    ----------
    module : GraphModule
        A graph after `lay_out_products`.
    """
    for node in list(module.graph.nodes):
        if torch.Tag.pointwise in getattr(node.target, "tags", ()) and len(shape(node)) == 3:
            for source in node.all_input_nodes:
                value = attribute(module, source)
                if value is not None and shape(source)[:-1] == shape(node)[:-1]:
                    _lay_out(module, node, source, value)
    renew_shapes(module)
    finish(module)


def _lay_out(module: GraphModule, node: Node, source: Node, value: Tensor) -> None:
    """Give one operator's constant ``(chain, data, class)`` its data axis last."""
    others = [n for n in node.all_input_nodes if n is not source and shape(n) == shape(node)]
    if not any(n.meta["val"].stride()[1] < n.meta["val"].stride()[2] for n in others):
        return
    repeats = value.stride(0) == 0 or bool((value == value[:1]).all())
    rows = value[:1] if repeats else value
    laid_out = rows.transpose(1, 2).contiguous().transpose(1, 2)
    with module.graph.inserting_before(node):
        node.replace_input_with(source, constant(module, laid_out))
