"""What the passes share: new nodes that know their shapes, and what may alias what."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

__all__ = [
    "SAME_ORDER",
    "are_tensors",
    "attribute",
    "call",
    "chains",
    "compiled_once",
    "constant",
    "dependents",
    "finish",
    "meta",
    "readers",
    "renew_shapes",
    "replace",
    "shape",
    "through_views",
    "writes",
]

_aten = torch.ops.aten

# Marks the nodes that passes insert.
_MADE = "made by a pass"

# Views that keep the row-major order of their elements.
SAME_ORDER = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.reshape.default,
    _aten.squeeze.dims,
    _aten.squeeze.dim,
    _aten.unsqueeze.default,
}


def meta(node: Node) -> Any:
    """Return a tensor without data that has the shape, strides and dtype of a node.

    A node that computes several tensors returns several.
    """
    return pytree.tree_map_only(Tensor, _without_data, node.meta["val"])


def _without_data(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def chains(module: GraphModule) -> int:
    """Return the number of chains: the rows of a graph's first input."""
    return shape(next(node for node in module.graph.nodes if node.op == "placeholder"))[0]


def dependents(module: GraphModule) -> set[Node]:
    """Nodes that depend on the position, which is a graph's first input."""
    found: set[Node] = set()
    for node in module.graph.nodes:
        is_position = node.op == "placeholder" and not found
        if is_position or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def shape(node: Node) -> tuple[int, ...]:
    """Shape of what a node computes; empty where it is not a tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def call(graph: Graph, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
    """Insert a call at the graph's insertion point, with the shape of its result."""
    node = graph.call_function(target, args, kwargs)
    node.meta.update({"val": _result(target, args, kwargs), _MADE: True})
    return node


def attribute(module: GraphModule, node: Node) -> Tensor | None:
    """Return the tensor that a node reads from the module, None where it is no constant."""
    value = getattr(module, str(node.target)) if node.op == "get_attr" else None
    return value if isinstance(value, Tensor) else None


def constant(module: GraphModule, value: Tensor) -> Node:
    """Insert a constant at the graph's insertion point."""
    number = sum(1 for _ in module.named_buffers())
    while hasattr(module, name := f"_constant_{number}"):
        number += 1
    module.register_buffer(name, value, persistent=False)
    node = module.graph.get_attr(name)
    node.meta.update({"val": value, _MADE: True})
    return node


def replace(old: Node, new: Node) -> None:
    """Let `new` stand wherever `old` was used."""
    old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def through_views(node: Node) -> Node:
    """Follow views that keep the order of the elements back to what they view."""
    while node.target in SAME_ORDER:
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def readers(node: Node, *views: Callable[..., Any]) -> list[tuple[Node, Node]]:
    """Go through what reads a node: the reader, and what it reads.

    Views that keep the order of the elements are looked through, and other `views` too.
    """
    found: list[tuple[Node, Node]] = []
    for user in node.users:
        looked_through = user.target in SAME_ORDER or user.target in views
        found += readers(user, *views) if looked_through else [(user, node)]
    return found


def renew_shapes(module: GraphModule) -> None:
    """Recompute what the nodes know of their strides, behind nodes that a pass inserted.

    Strides decide how fast a graph runs, not what it computes: where an operator cannot be called
    without data, its node keeps what it knew.
    """
    changed: set[Node] = set()
    for node in module.graph.nodes:
        sources = node.all_input_nodes
        if node.op != "call_function" or not are_tensors([node, *sources]):
            continue
        if any(source in changed or _MADE in source.meta for source in sources):
            before = node.meta["val"].stride()
            views = (_aten.view.default, _aten._unsafe_view.default)
            if node.target in views and _MADE not in node.meta:
                # What was contiguous when it was traced may not be any more.
                node.target = _aten.reshape.default
            with contextlib.suppress(RuntimeError):
                node.meta["val"] = _result(node.target, node.args, node.kwargs)
            if node.meta["val"].stride() != before:
                changed.add(node)


def are_tensors(nodes: Iterable[Node]) -> bool:
    """Whether each of the nodes computes one tensor, and says of what shape."""
    return all(isinstance(node.meta.get("val"), Tensor) for node in nodes)


def _result(target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call an operator on tensors without data, for the shape of its result."""
    arguments, keywords = pytree.tree_map(
        lambda leaf: meta(leaf) if isinstance(leaf, Node) else leaf,
        (args, kwargs),
        is_leaf=lambda leaf: isinstance(leaf, Node),
    )
    return target(*arguments, **keywords)


def writes(nodes: Iterable[Node]) -> bool:
    """Whether any of the nodes writes into one of its arguments."""
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in nodes
    )


def finish(module: GraphModule) -> None:
    """Drop what is not used any more and compile the graph's Python anew."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


@contextlib.contextmanager
def compiled_once(module: GraphModule) -> Iterator[None]:
    """Compile the graph's Python when several passes are through, not after each of them.

    The module is not to be called inside of the block.
    """
    module.__dict__["recompile"] = lambda: None
    try:
        yield
    finally:
        del module.__dict__["recompile"]
        module.recompile()
