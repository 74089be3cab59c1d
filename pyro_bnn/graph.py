"""ATen graphs of pure functions: trace once, fold what never changes, run without Python above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

__all__ = ["constant_fold", "trace_graph"]

_RANDOM = torch.Tag.nondeterministic_seeded

# Operators that read nothing of their first argument but its shape, and the value they fill with.
_FILLS = {
    torch.ops.aten.new_ones.default: 1,
    torch.ops.aten.new_zeros.default: 0,
    torch.ops.aten.ones_like.default: 1,
    torch.ops.aten.zeros_like.default: 0,
    # Their last argument.
    torch.ops.aten.full_like.default: None,
    torch.ops.aten.new_full.default: None,
}


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
    # Nodes note shapes as tensors without data. Outside of a context each gets a mode of its own,
    # with a trace of the stack, for nearly a third of the time.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
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
    written = _written(graph)
    constants: dict[Node, Any] = {}
    for node in list(graph.nodes):
        if node in written:
            continue
        if node.op == "get_attr":
            constants[node] = getattr(module, str(node.target))
        elif node.target in _FILLS:
            like = node.meta["val"]
            fill: Any = _FILLS[node.target]
            if fill is None:
                fill = node.args[-1]
            constants[node] = torch.full(like.shape, fill, dtype=like.dtype, device=like.device)
        elif node.op == "call_function" and _folds(node, constants):
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


def _folds(node: Node, constants: dict[Node, Any]) -> bool:
    is_random = _RANDOM in getattr(node.target, "tags", ())
    return not is_random and all(source in constants for source in node.all_input_nodes)


def _written(graph: Graph) -> set[Node]:
    """Nodes that write, and all that they might write into, through any number of views."""
    found: set[Node] = set()
    waiting = [
        node
        for node in graph.nodes
        if getattr(getattr(node.target, "_schema", None), "is_mutable", False)
    ]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


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
