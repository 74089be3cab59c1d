"""Hyperbolic tangents as a quotient of polynomials, for a compiler to vectorise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_bnn.passes.rewrite import call, finish, replace

__all__ = ["rational_tanh", "use_rational_tanh"]

_aten = torch.ops.aten

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 9.02, where float32 rounds to one: a fit of the smallest
# largest relative error, 1.3e-9 before rounding. Lowest powers first.
_LIMIT = 9.02
_NUMERATOR = (
    0.9999999987037819,
    0.13679895137428977,
    0.003868302494944691,
    2.800693559834484e-05,
    3.058372309740446e-08,
    -1.2202477941103008e-11,
)
_DENOMINATOR = (
    1.0,
    0.47013227203872743,
    0.027245747085842893,
    0.00039385860683857925,
    1.2873294377783128e-06,
)


def rational_tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent in float32, to 4e-7 of its value (three units in the last place)."""
    x = torch.clamp(x, -_LIMIT, _LIMIT)
    square = x * x
    return torch.clamp(
        x * _polynomial(square, _NUMERATOR) / _polynomial(square, _DENOMINATOR), -1.0, 1.0
    )


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    *rest, value = coefficients
    total = x * value + rest[-1]
    for coefficient in reversed(rest[:-1]):
        total = total * x + coefficient
    return total


def use_rational_tanh(module: GraphModule) -> None:
    """Replace hyperbolic tangents of float32 tensors, in place; those of others stay.

    Parameters
    ----------
    module : GraphModule
        A graph that is going to be compiled: run as it is, each step is a pass over memory.
    """
    for node in list(module.graph.nodes):
        source = node.args[0] if node.args else None
        if (
            node.target is _aten.tanh.default
            and isinstance(source, Node)
            and source.meta["val"].dtype == torch.float32
        ):
            with module.graph.inserting_before(node):
                result = call(module.graph, rational_tanh, source)
            replace(node, result)
            module.graph.erase_node(node)
    finish(module)
