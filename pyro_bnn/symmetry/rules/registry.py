"""The registry of rules: what each operator of the graph does to index spaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.values import Stacked, Value

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One operator call.

    Attributes
    ----------
    name : str
        The operator without its overload, such as ``aten.linear``.
    args : tuple
        Arguments; tensors are values under analysis.
    kwargs : dict
    shapes : tuple of tuple of int
        Shapes of the results.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[Shape, ...]

    @property
    def shape(self) -> Shape:
        """Shape of the only result."""
        return self.shapes[0]

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def tensors(self) -> Iterator[Value]:
        """Run through the tensor arguments."""
        for argument in (*self.args, *self.kwargs.values()):
            items = argument if isinstance(argument, (list, tuple)) else (argument,)
            yield from (item for item in items if isinstance(item, Value))


Result = Value | Stacked | tuple[Value | Stacked, ...] | None
Rule = Callable[[Analysis, Call], Result]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators; a rule that returns None declines the call."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[f"aten.{name}"] = function
        return function

    return register


def operand(analysis: Analysis, argument: Any) -> Value:
    """Return an argument as a value: numbers become constants."""
    if isinstance(argument, Value):
        return argument
    if isinstance(argument, Tensor):
        return analysis.constant(argument)
    return analysis.constant(Tensor([float(argument)]).reshape(()))


def normalise(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    return axis + rank if axis < 0 else axis


def labels(value: Value) -> range:
    """Return one label per axis."""
    return range(len(value.shape))
