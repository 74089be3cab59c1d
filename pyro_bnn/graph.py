"""ATen graphs of pure functions: trace once, fold what never changes, run without Python above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

__all__ = ["constant_fold", "trace_graph"]

_RANDOM = torch.Tag.nondeterministic_seeded


def trace_graph(
    function: Callable[..., Any], *inputs: Tensor, pre_dispatch: bool = False
) -> GraphModule:
    """Trace a pure function of tensors into a plain ATen graph.

    Parameters
    ----------
    function : callable
        A pure function of tensors; composed ``torch.func`` transforms are flattened away.
    *inputs : Tensor
        Example inputs; the graph is specialised to their shapes, dtypes and device.
    pre_dispatch : bool, default False
        Keep composite operators (``aten.linear``, ``aten.conv2d``, ...) whole. The graph is then
        to be read, not to be differentiated.

    Returns
    -------
    GraphModule
        The graph, dead code removed and everything that depends on constants only evaluated.
    """
    traced = make_fx(function, pre_dispatch=pre_dispatch)(*inputs)
    constant_fold(traced)
    return traced


def constant_fold(module: GraphModule) -> None:
    """Evaluate, in place, every node that depends on no input of the graph.

    Distributions are rebuilt from Python numbers each time a model runs, so a traced log density is
    full of small constant computations; after folding they cost nothing per call.
    """
    graph = module.graph
    graph.eliminate_dead_code()
    constants: dict[Node, Any] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            constants[node] = getattr(module, str(node.target))
        elif node.op == "call_function" and _is_foldable(node, constants):
            arguments, keywords = pytree.tree_map(
                lambda leaf: constants[leaf] if isinstance(leaf, Node) else leaf,
                (node.args, node.kwargs),
                is_leaf=lambda leaf: isinstance(leaf, Node),
            )
            with torch.no_grad():
                constants[node] = node.target(*arguments, **keywords)
    _replace_by_attributes(module, graph, constants)
    graph.eliminate_dead_code()
    module.recompile()


def _is_foldable(node: Node, constants: dict[Node, Any]) -> bool:
    tags = getattr(node.target, "tags", ())
    schema = getattr(node.target, "_schema", None)
    mutates = schema is not None and schema.is_mutable
    return (
        _RANDOM not in tags
        and not mutates
        and not any(user_mutates(user) for user in node.users)
        and all(source in constants for source in node.all_input_nodes)
    )


def user_mutates(node: Node) -> bool:
    """Whether a node writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _replace_by_attributes(module: GraphModule, graph: Graph, constants: dict[Node, Any]) -> None:
    for index, (node, value) in enumerate(constants.items()):
        read_by_others = any(user not in constants for user in node.users)
        if node.op == "get_attr" or not read_by_others or not isinstance(value, Tensor):
            continue
        name = f"_folded_{index}"
        module.register_buffer(name, value, persistent=False)
        with graph.inserting_before(node):
            folded = graph.get_attr(name)
        folded.meta = dict(node.meta)
        node.replace_all_uses_with(folded)
