"""The rows of a model's data: which of its arguments have them, and some of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Arguments", "Rows", "as_tuple"]

Rows = Tensor | tuple[Tensor, ...]
"""A minibatch: the numbers of its rows, or the rows themselves, one tensor for each of data."""


def as_tuple(rows: Rows | None) -> tuple[Tensor, ...]:
    """Return the tensors of a minibatch, none for the whole data."""
    if rows is None:
        return ()
    return (rows,) if isinstance(rows, Tensor) else tuple(rows)


@dataclass(frozen=True)
class Arguments:
    """What a model is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def tensors(self) -> list[Tensor]:
        """List the tensors among the arguments, also those inside of containers."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def with_rows(self, count: int) -> list[Tensor]:
        """List the tensors that have `count` rows."""
        return [leaf for leaf in self.tensors() if _has_rows(leaf, count)]

    def shapes(self) -> str:
        """Say of what shapes the tensors are."""
        return ", ".join(str(tuple(leaf.shape)) for leaf in self.tensors()) or "none"

    def longest(self) -> int:
        """Return the number of rows of the longest tensor."""
        return max((leaf.shape[0] for leaf in self.tensors() if leaf.ndim), default=0)

    def choose(self, count: int, pick: Callable[[Tensor], Tensor]) -> Arguments:
        """Return the arguments with another tensor in place of each that has `count` rows."""

        def chosen(leaf: Any) -> Any:
            return pick(leaf) if _has_rows(leaf, count) else leaf

        args, kwargs = pytree.tree_map(chosen, (self.args, self.kwargs))
        return Arguments(args, kwargs)


def _has_rows(leaf: Any, count: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == count
