"""Index spaces: what the axes of the tensors of a computation are made of.

An axis is a product of index spaces (a flattened image axis is channel times grid) or a
concatenation of them (a DenseNet feature map), whose parts may take turns point by point (a
shuffled one). Spaces start out unknown and are refined by
unification: a view that splits an axis makes its space a product, a slice makes it a
concatenation, an addition makes two spaces one. What cannot be reconciled is pinned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Leaf:
    """An index space of `size` points, possibly refined since it was made.

    Parameters
    ----------
    size : int
        Number of points, at least 2: an axis of one point has no space at all.
    pinned : bool
        Whether the order of the points is fixed by something outside the weights.
    factors : tuple of Leaf, optional
        Set once the space is known to be this product (one factor: an alias).
    parts : tuple of tuple of Leaf, optional
        Set once the space is known to be this concatenation of products.
    crossed : bool
        Whether it was pinned, or made one with others, only because cuts cross one another.
    woven : bool
        Whether the parts take turns instead of following one another: the points of part `j`
        of `k` lie at `j`, `j + k`, ... The sizes of the parts fall, by one at most.
    """

    size: int
    pinned: bool = False
    factors: tuple[Leaf, ...] | None = None
    parts: tuple[tuple[Leaf, ...], ...] | None = None
    woven: bool = False
    crossed: bool = False


@dataclass(eq=False)
class Slot:
    """One occurrence of a space in one tensor; it follows the refinement of its space."""

    leaf: Leaf
    _factors: tuple[Slot, ...] | None = field(default=None, repr=False)
    _parts: tuple[tuple[Slot, ...], ...] | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Number of points of the space."""
        return self.leaf.size

    def expand(self) -> list[Slot]:
        """Return the slot as a product of slots whose spaces are simple or concatenations."""
        if self.leaf.factors is None:
            return [self]
        if self._factors is None:
            self._factors = tuple(Slot(leaf) for leaf in self.leaf.factors)
        return [slot for child in self._factors for slot in child.expand()]

    def parts(self) -> tuple[tuple[Slot, ...], ...] | None:
        """Return the parts of a slot whose space is a concatenation."""
        if self.leaf.parts is None:
            return None
        if self._parts is None:
            self._parts = tuple(tuple(Slot(leaf) for leaf in part) for part in self.leaf.parts)
        return self._parts


Axis = tuple[Slot, ...]


@dataclass(frozen=True)
class Alternative:
    """One choice of parts along an axis: an affine map from simple spaces to positions.

    Attributes
    ----------
    path : frozenset of (Slot, int)
        Which part was chosen of every concatenation on the way.
    offset : int
        Position of the first point.
    slots, strides : tuple
        Simple slots and the number of positions that one step along each moves.
    """

    path: frozenset[tuple[Slot, int]]
    offset: int
    slots: tuple[Slot, ...]
    strides: tuple[int, ...]

    def same_layout(self, other: Alternative) -> bool:
        """Whether two alternatives run through the same spaces at the same positions."""
        return (
            self.offset == other.offset
            and self.strides == other.strides
            and all(a.leaf is b.leaf for a, b in zip(self.slots, other.slots, strict=True))
        )


def fresh(size: int, pinned: bool = False) -> tuple[Leaf, ...]:
    """Return a new unknown axis of `size` points, as a product of spaces."""
    return () if size == 1 else (Leaf(size, pinned),)


def slots(leaves: Iterable[Leaf]) -> Axis:
    """Return new slots for a product of spaces."""
    return tuple(Slot(leaf) for leaf in leaves)


def leaves(axis: Iterable[Slot]) -> tuple[Leaf, ...]:
    """Return the spaces of an axis."""
    return tuple(slot.leaf for slot in axis)


def size(leaves: Iterable[Leaf] | Iterable[Slot]) -> int:
    """Return the number of points of a product of spaces."""
    return math.prod(leaf.size for leaf in leaves)


def expand(leaves: Iterable[Leaf]) -> list[Leaf]:
    """Return a product of spaces in its simple spaces and concatenations."""
    result: list[Leaf] = []
    for leaf in leaves:
        result.extend([leaf] if leaf.factors is None else expand(leaf.factors))
    return result


def alternatives(axis: Sequence[Slot]) -> list[Alternative]:
    """Return every choice of parts along an axis."""
    result = [Alternative(frozenset(), 0, (), ())]
    stride = 1
    for slot in reversed([s for factor in axis for s in factor.expand()]):
        choices: list[Alternative] = []
        parts = slot.parts()
        if parts is None:
            choices.append(Alternative(frozenset(), 0, (slot,), (1,)))
        else:
            start = 0
            step = len(parts) if slot.leaf.woven else 1
            for number, part in enumerate(parts):
                for inner in alternatives(part):
                    path = inner.path | {(slot, number)}
                    offset = inner.offset * step + start
                    strides = tuple(s * step for s in inner.strides)
                    choices.append(Alternative(path, offset, inner.slots, strides))
                start += 1 if slot.leaf.woven else size(part)
        result = [
            Alternative(
                left.path | right.path,
                left.offset * stride + right.offset,
                left.slots + right.slots,
                tuple(step * stride for step in left.strides) + right.strides,
            )
            for left in choices
            for right in result
        ]
        stride *= slot.size
    return result


def simple(leaves: Iterable[Leaf]) -> list[Leaf]:
    """Return every simple space of a product, inside concatenations too."""
    result: list[Leaf] = []
    for leaf in expand(leaves):
        if leaf.parts is None:
            result.append(leaf)
        else:
            for part in leaf.parts:
                result.extend(simple(part))
    return result


def pin(leaves: Iterable[Leaf]) -> None:
    """Fix the order of the points of every simple space of a product."""
    for leaf in simple(leaves):
        leaf.pinned = True


def cross(leaves: Iterable[Leaf]) -> None:
    """Pin a product of spaces for want of a way to cut it, and remember that."""
    for leaf in simple(leaves):
        leaf.crossed |= not leaf.pinned
        leaf.pinned = True


def unify(left: Sequence[Leaf], right: Sequence[Leaf]) -> None:
    """Make two products of spaces of the same size one; pin what cannot be reconciled."""
    a, b = expand(left), expand(right)
    while a and b:
        f, g = a[0], b[0]
        if f is g:
            a, b = a[1:], b[1:]
        elif f.size == g.size:
            _unify_factor(f, g)
            a, b = a[1:], b[1:]
        else:
            if f.size < g.size:
                a, b, f, g = b, a, g, f
            if not split_product(f, g.size):
                cross(a)
                cross(b)
                return
        a, b = expand(a), expand(b)


def split_product(leaf: Leaf, first: int) -> bool:
    """Refine a space into `first` times the rest; return whether that was possible.

    A concatenation can be split in two ways: in `first` equal parts (the leading factor
    counts the parts), or with the rest common to all parts.
    """
    if leaf.size % first or leaf.woven:
        return False
    rest = leaf.size // first
    if leaf.parts is None:
        factors = [Leaf(n, leaf.pinned, crossed=leaf.crossed) for n in (first, rest)]
        leaf.factors = tuple(factors)
        return True
    parts = leaf.parts
    if len(parts) == first and all(size(part) == rest for part in parts):
        inner = Leaf(rest)
        for part in parts:
            unify((inner,), part)
        for common in simple((inner,)):
            common.crossed = True
        leaf.parts = None
        leaf.factors = (Leaf(first, parts=((),) * first), inner)
        return True
    if all(size(part) % rest == 0 for part in parts):
        inner = Leaf(rest)
        heads = []
        for part in parts:
            head = fresh(size(part) // rest)
            unify((*head, inner), part)
            heads.append(head)
        leaf.parts = None
        leaf.factors = (Leaf(first, parts=tuple(heads)), inner)
        return True
    return False


def split_sum(leaves: Sequence[Leaf], at: int) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]] | None:
    """Cut a product of spaces in two at position `at`; None where that is impossible."""
    axis = expand(leaves)
    rest = size(axis[1:])
    if at % rest:
        return None
    head, tail = axis[0], tuple(axis[1:])
    cut = at // rest
    if head.parts is None:
        first, second = fresh(cut, head.pinned), fresh(head.size - cut, head.pinned)
        for half in (*first, *second):
            half.crossed = head.crossed
        head.parts = (first, second)
        return (*first, *tail), (*second, *tail)
    if head.woven:
        halves = _split_woven(head.parts, cut)
        return None if halves is None else ((*halves[0], *tail), (*halves[1], *tail))
    before: list[tuple[Leaf, ...]] = []
    after: list[tuple[Leaf, ...]] = []
    position = 0
    for part in head.parts:
        length = size(part)
        if position + length <= cut:
            before.append(part)
        elif position >= cut:
            after.append(part)
        else:
            halves = split_sum(part, cut - position)
            if halves is None:
                return None
            before.append(halves[0])
            after.append(halves[1])
        position += length
    return (*concatenation(before), *tail), (*concatenation(after), *tail)


def _split_woven(
    parts: Sequence[tuple[Leaf, ...]], cut: int
) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]] | None:
    """Cut a woven space in two: the second half begins with the part whose turn it is."""
    count = len(parts)
    before: list[tuple[Leaf, ...]] = []
    after: list[tuple[Leaf, ...]] = []
    for number, part in enumerate(parts):
        taken = len(range(number, cut, count))
        if not taken:
            after.append(part)
        elif taken == size(part):
            before.append(part)
        else:
            halves = split_sum(part, taken)
            if halves is None:
                return None
            before.append(halves[0])
            after.append(halves[1])
    turn = cut % count
    whole = len(after) == count
    return weaving(before), weaving([*after[turn:], *after[:turn]] if whole else after)


def weaving(parts: Sequence[tuple[Leaf, ...]]) -> tuple[Leaf, ...]:
    """Return the space in which products of spaces take turns, as a product."""
    if len(parts) == 1:
        return parts[0]
    return (Leaf(sum(size(part) for part in parts), parts=tuple(parts), woven=True),)


def concatenation(parts: Sequence[tuple[Leaf, ...]]) -> tuple[Leaf, ...]:
    """Return the concatenation of products of spaces, as a product."""
    if len(parts) == 1:
        return parts[0]
    return (Leaf(sum(size(part) for part in parts), parts=tuple(parts)),)


def _unify_factor(f: Leaf, g: Leaf) -> None:
    """Make two factors of the same size one."""
    if f.parts is None or g.parts is None:
        if f.parts is not None:
            f, g = g, f
        if f.pinned:
            pin([g])
        for leaf in simple([g]):
            leaf.crossed |= f.crossed
        f.factors = (g,)
        return
    if f.woven or g.woven:
        if f.woven != g.woven or len(f.parts) != len(g.parts):
            cross([f, g])
            return
        for left, right in zip(f.parts, g.parts, strict=True):
            unify(left, right)
        return
    a, b = list(f.parts), list(g.parts)
    while a and b:
        n, m = size(a[0]), size(b[0])
        if n != m:
            if n < m:
                a, b, n, m = b, a, m, n
            halves = split_sum(a[0], m)
            if halves is None:
                cross([f, g])
                return
            a[:1] = list(halves)
        unify(a[0], b[0])
        a, b = a[1:], b[1:]
