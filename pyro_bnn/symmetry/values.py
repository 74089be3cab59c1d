"""What is known of one tensor: its axes, and the blocks that concatenations cut it into."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor

from pyro_bnn.symmetry.spaces import Alternative, Axis, Slot

Path = frozenset[tuple[Slot, int]]


@dataclass(eq=False)
class Value:
    """What is known of one tensor.

    Attributes
    ----------
    shape : tuple of int
    axes : tuple of Axis
        The slots of each axis; an axis without slots is uniform (or of one point).
    owner : int
        Tensors that hold the same numbers in another arrangement share an owner and slots.
    constant : Tensor, optional
        The value of a tensor that does not depend on the weights.
    zero : bool
        Whether a constant is zero everywhere.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    owner: int
    constant: Tensor | None = None
    zero: bool = False


@dataclass(eq=False)
class Stacked:
    """Tensors of one shape, stacked along an axis.

    Attributes
    ----------
    parts : tuple of Value
        Without the axis.
    axis : int
    shape : tuple of int
        With the axis.
    """

    parts: tuple[Value, ...]
    axis: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """One block of a tensor: a path for its concatenations and its slots."""

    owner: int
    path: Path
    axes: tuple[Alternative, ...]

    @property
    def overall(self) -> Hashable:
        """The variable of the block's overall exponent."""
        return ("c", self.owner, self.path)

    def per_unit(self, slot: Slot) -> Hashable:
        """Return the variable of the exponent along one of the block's spaces."""
        return ("a", self.owner, self.path, slot)

    def slots(self) -> Iterator[Slot]:
        """Run through the slots of all axes."""
        return itertools.chain.from_iterable(axis.slots for axis in self.axes)
