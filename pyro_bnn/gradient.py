"""Traced gradients: a function of many chains as a graph, rewritten, checked, perhaps compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_bnn.graph import trace_graph
from pyro_bnn.passes.pipeline import optimise, prepare_for_compiler

__all__ = ["Traced", "trace_gradient"]

Gradient = Callable[..., tuple[Tensor, Tensor]]


class Traced(NamedTuple):
    """A function in the form that it takes at every call.

    Attributes
    ----------
    function : callable
        The same function as the one that was traced.
    path : str
        Which form it takes, and why not a faster one.
    passes : tuple of str
        The passes of `pyro_bnn.passes` that rewrote it.
    """

    function: Gradient
    path: str
    passes: tuple[str, ...] = ()


def trace_gradient(function: Gradient, *inputs: Tensor, compiled: bool = False) -> Traced:
    """Trace a batched value and gradient into the fastest form that computes the same.

    Each form is compared with the function itself before it is used. Where one fails, the next
    simpler one is taken: compiled, rewritten, as traced, and at last the function as it is.

    Parameters
    ----------
    function : callable
        Maps a position ``(chain, dim)`` and further tensors to values ``(chain,)`` and gradients
        ``(chain, dim)``.
    *inputs : Tensor
        Example inputs; other calls have their shapes and dtypes.
    compiled : bool, default False
        Whether to have the graph compiled.

    Returns
    -------
    Traced
        The same function, the form that it takes and why.
    """
    # Somewhere else than where it was traced, so that a branch that was burnt in shows.
    elsewhere = (0.5 * inputs[0].detach() + 0.1, *inputs[1:])
    try:
        plain = trace_graph(function, *(tensor.detach().clone() for tensor in inputs))
        expected = function(*elsewhere)
        _check(plain, elsewhere, expected)
    except Exception as error:
        return Traced(function, f"vmap, untraced ({_first_line(error)})")
    device = inputs[0].device
    why = ""
    if compiled:
        try:
            graph = _copy(plain)
            passes = prepare_for_compiler(graph, device)
            fast = _without_autograd(_compile(graph, *elsewhere))
            _check(fast, elsewhere, expected)
            return Traced(fast, "ATen graph, compiled", tuple(passes))
        except Exception as error:
            why = f"; not compiled ({_first_line(error)})"
    try:
        graph = _copy(plain)
        passes = optimise(graph, device)
        _check(graph, elsewhere, expected)
    except Exception as error:
        path = f"ATen graph, eager, as traced ({_first_line(error)}){why}"
        return Traced(_without_autograd(plain), path)
    return Traced(_without_autograd(graph), f"ATen graph, eager{why}", tuple(passes))


def _compile(graph: GraphModule, *inputs: Tensor) -> Gradient:
    """Compile a graph by inductor, which is not imported before it is needed."""
    from torch._inductor import compile as compile_graph
    from torch._inductor.cpp_builder import get_cpp_compiler

    if inputs[0].device.type == "cpu":
        try:
            get_cpp_compiler()
        except Exception as error:
            raise RuntimeError("no C++ compiler was found: install g++ or clang") from error
    for node in graph.graph.nodes:
        # What the passes noted of shapes are tensors without data: the compiler makes its own.
        node.meta.clear()
    with torch.no_grad():
        function: Gradient = compile_graph(graph, list(inputs))
    return function


def _copy(module: GraphModule) -> GraphModule:
    """Copy a graph; its constants are shared."""
    return GraphModule(module, copy.deepcopy(module.graph))


def _without_autograd(function: Callable[..., tuple[Tensor, Tensor]]) -> Gradient:
    def run(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            value, gradient = function(*tensors)
        return value, gradient

    return run


def _check(function: Gradient, inputs: tuple[Tensor, ...], expected: tuple[Tensor, Tensor]) -> None:
    """Refuse a form whose values or gradients are not those of the function."""
    with torch.no_grad():
        found = function(*inputs)
    for one, other in zip(found, expected, strict=True):
        size = float(other.nan_to_num(0.0, 0.0, 0.0).abs().max()) if other.numel() else 0.0
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-4 * size, equal_nan=True):
            raise RuntimeError("the traced graph differs from the model")
        if one.untyped_storage().data_ptr() == inputs[0].untyped_storage().data_ptr():
            raise RuntimeError("a result lies in the memory of the position")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]
