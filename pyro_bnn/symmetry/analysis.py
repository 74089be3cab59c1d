"""The abstract interpreter: index spaces and exponents of every tensor of a computation.

Structure first: as the operators are read in order, each rule unifies, splits, joins or pins
index spaces. Once all spaces are known, the exponent equations that the rules left behind
are added up, block by block (a block is one choice of parts along every concatenated axis).
Each block carries one overall exponent and one exponent for each of its spaces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from torch import Tensor
from torch.fx import Node

from pyro_bnn.symmetry import spaces
from pyro_bnn.symmetry.exponents import LinearSystem
from pyro_bnn.symmetry.spaces import Alternative, Axis, Leaf, Slot

Path = frozenset[tuple[Slot, int]]
Parity = Literal["odd", "even", "none"]
PARAMETER_PRIORITY = 1 << 60


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


@dataclass
class Analysis:
    """State of the interpretation of one graph.

    Attributes
    ----------
    scale, sign : LinearSystem
        The exponent equations.
    unruled : dict of str to int
        Operators without a rule, with the number of times each was met.
    values : list of Value
        All tensors, in order of computation.
    inputs : list of Leaf
        Spaces of constants that were contracted with weights.
    mixed : list of Leaf
        Spaces whose points some operator compares with each other.
    bent : list of Leaf
        Spaces along which some operator is not linear: no matrix passes through it.
    offsets : dict of int to float
        Constants to which scales act relatively (the eps of batch norm, by variance).
    nodes : dict
        What is known of each node of the graph: values, or tensors that are constant.
    """

    scale: LinearSystem = field(default_factory=LinearSystem)
    sign: LinearSystem = field(default_factory=lambda: LinearSystem(2))
    unruled: dict[str, int] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    inputs: list[Leaf] = field(default_factory=list)
    mixed: list[Leaf] = field(default_factory=list)
    bent: list[Leaf] = field(default_factory=list)
    offsets: dict[int, float] = field(default_factory=dict)
    nodes: dict[Node, Any] = field(default_factory=dict)
    _deferred: list[Callable[[], None]] = field(default_factory=list)
    _owners: Iterator[int] = field(default_factory=itertools.count)
    _parameters: set[int] = field(default_factory=set)

    # Values ------------------------------------------------------------------------------

    def new(self, axes: Sequence[Axis], shape: Sequence[int]) -> Value:
        """Return a new tensor with its own exponents."""
        value = Value(tuple(shape), tuple(axes), next(self._owners))
        self.values.append(value)
        return value

    def parameter(self, shape: Sequence[int]) -> Value:
        """Return a tensor of weights: every axis is a space of its own."""
        value = self.new([spaces.slots(spaces.fresh(n)) for n in shape], shape)
        self._parameters.add(value.owner)
        return value

    def constant(self, tensor: Tensor) -> Value:
        """Return a tensor that the weights do not enter.

        Axes along which it varies are pinned, the others are uniform. Nothing is pinned in a
        tensor of zeros, which also takes any exponent.
        """
        zero = bool((tensor == 0).all())
        axes: list[Axis] = []
        for axis, n in enumerate(tensor.shape):
            if zero:
                axes.append(spaces.slots(spaces.fresh(n)))
                continue
            same = n == 1 or bool((tensor == tensor.narrow(axis, 0, 1)).all()) if n else True
            axes.append(() if same else spaces.slots(spaces.fresh(n, pinned=True)))
        value = Value(tuple(tensor.shape), tuple(axes), next(self._owners), tensor)
        value.zero = zero
        if not zero:
            self.freeze(value)
        return value

    def opaque(self, shape: Sequence[int]) -> Value:
        """Return a tensor of which nothing is known: pinned, without exponents."""
        axes = [spaces.slots(spaces.fresh(n, pinned=True)) for n in shape]
        value = self.new(axes, shape)
        self.freeze(value)
        return value

    def rearranged(self, source: Value, axes: Sequence[Axis], shape: Sequence[int]) -> Value:
        """Return the same numbers in another arrangement: slots and exponents are shared."""
        value = Value(tuple(shape), tuple(axes), source.owner, source.constant, source.zero)
        self.values.append(value)
        return value

    def materialise(self, value: Value) -> Value:
        """Give uniform axes a space of their own, so that they can be split and merged.

        Whatever is uniform is blind to permutations, so the space stays free.
        """
        axes = list(value.axes)
        added = [k for k, n in enumerate(value.shape) if not axes[k] and n > 1]
        for axis in added:
            axes[axis] = spaces.slots(spaces.fresh(value.shape[axis]))
        result = self.rearranged(value, axes, value.shape)

        def equations() -> None:
            for block in self.blocks(result):
                for axis in added:
                    for slot in block.axes[axis].slots:
                        self._both({block.per_unit(slot): 1})

        if added and not value.zero:
            self._deferred.append(equations)
            self.bent.extend(slot.leaf for axis in added for slot in axes[axis])
        return result

    def pin(self, value: Value, axis: int | None = None) -> None:
        """Fix the order along one axis, or along all."""
        for slots in value.axes if axis is None else (value.axes[axis],):
            spaces.pin(spaces.leaves(slots))

    def cross(self, value: Value) -> None:
        """Pin and freeze a tensor that cannot be cut as it should, and remember that."""
        for slots in value.axes:
            spaces.cross(spaces.leaves(slots))
        self.freeze(value)

    def freeze(self, value: Value) -> None:
        """Let neither scale nor sign through a tensor."""
        self._deferred.append(lambda: self._freeze(value))

    def freeze_axes(self, value: Value, axes: Sequence[int], signs: bool = True) -> None:
        """Let no exponent vary along some axes; `signs` says whether that holds for signs too."""
        systems = [self.scale, self.sign] if signs else [self.scale]
        frozen = {axis % len(value.shape) for axis in axes}

        def equations() -> None:
            first: dict[Hashable, Block] = {}
            for block in self.blocks(value):
                others = [axis for k, axis in enumerate(block.axes) if k not in frozen]
                same = first.setdefault(tuple(axis.path for axis in others), block)
                for system in systems:
                    for k in frozen:
                        for slot in block.axes[k].slots:
                            system.add({block.per_unit(slot): 1})
                    if same is block:
                        continue
                    # the parts of a concatenation are compared too: one exponent for all
                    system.add({block.overall: 1, same.overall: -1})
                    for axis in others:
                        for slot in axis.slots:
                            system.add({block.per_unit(slot): 1, same.per_unit(slot): -1})

        self._deferred.append(equations)

    def mix(self, value: Value, axes: Sequence[int]) -> None:
        """Remember that an operator compares the points along some axes with each other."""
        for axis in axes:
            self.mixed.extend(slot.leaf for slot in value.axes[axis])

    def freeze_signs(self, value: Value) -> None:
        """Let no sign through a tensor."""

        def equations() -> None:
            for block in self.blocks(value):
                for variable in (block.overall, *map(block.per_unit, block.slots())):
                    self.sign.add({variable: 1})

        self._deferred.append(equations)

    def unknown(self, name: str, inputs: Sequence[Value]) -> None:
        """Pin and freeze what an operator without a rule touches, and name it."""
        self.unruled[name] = self.unruled.get(name, 0) + 1
        for value in inputs:
            if value.constant is None:
                self.pin(value)
                self.freeze(value)

    # Relations ---------------------------------------------------------------------------

    def product(
        self,
        operands: Sequence[tuple[Value, Sequence[Hashable]]],
        out: Sequence[Hashable],
        shape: Sequence[int],
    ) -> Value:
        """Multiply operands and sum over the labels that the result lacks, as einsum does."""
        for value, labels in operands:
            if value.constant is not None:
                contracted = [a for a, n in zip(value.axes, labels, strict=True) if n not in out]
                self.inputs.extend(slot.leaf for axis in contracted for slot in axis)
        return self._relate(operands, out, shape, "product", Fraction(1), "odd")

    def add(self, operands: Sequence[Value], shape: Sequence[int]) -> Value:
        """Add operands, broadcasting as torch does."""
        n = len(shape)
        labelled = [(value, range(n - len(value.shape), n)) for value in operands]
        return self._relate(labelled, range(n), shape, "sum", Fraction(1), "odd")

    def multiply(self, operands: Sequence[Value], shape: Sequence[int]) -> Value:
        """Multiply operands elementwise, broadcasting as torch does."""
        n = len(shape)
        labelled = [(value, range(n - len(value.shape), n)) for value in operands]
        return self.product(labelled, range(n), shape)

    def apply(
        self,
        value: Value,
        labels: Sequence[Hashable],
        out: Sequence[Hashable],
        shape: Sequence[int],
        degree: Fraction | int | None,
        parity: Parity,
    ) -> Value:
        """Apply an elementwise map, then reduce over the labels that the result lacks.

        Parameters
        ----------
        value : Value
        labels, out : sequence
            Labels of the axes before and after.
        shape : sequence of int
        degree : Fraction, optional
            Degree of homogeneity under positive scales; None where there is none.
        parity : {"odd", "even", "none"}
            What a change of sign does.
        """
        exact = None if degree is None else Fraction(degree)
        return self._relate([(value, labels)], out, shape, "map", exact, parity)

    def embed(
        self, parts: Sequence[tuple[Value, int]], whole: Value, axis: int, step: int = 1
    ) -> None:
        """Tie the exponents of parts to those of the tensor that holds them along an axis.

        Each part begins at a point of the axis; its points follow `step` apart.
        """

        def equations() -> None:
            for part, start in parts:
                self._embed(part, whole, axis, start, step)

        self._deferred.append(equations)

    def solve(self) -> None:
        """Add up the exponent equations of everything read so far."""
        for equations in self._deferred:
            equations()
        self._deferred.clear()

    def blocks(self, value: Value) -> Iterator[Block]:
        """Run through the blocks of a tensor, declaring their variables."""
        for axes in itertools.product(*(spaces.alternatives(axis) for axis in value.axes)):
            yield self._block(value, axes)

    # Exponent equations ------------------------------------------------------------------

    def _block(self, value: Value, axes: tuple[Alternative, ...]) -> Block:
        path: Path = frozenset().union(*(axis.path for axis in axes))
        block = Block(value.owner, path, axes)
        priority = value.owner + PARAMETER_PRIORITY * (value.owner in self._parameters)
        for system in (self.scale, self.sign):
            system.declare(block.overall, priority)
            for slot in block.slots():
                system.declare(block.per_unit(slot), priority)
        return block

    def _both(self, equation: Mapping[Hashable, int]) -> None:
        self.scale.add(equation)
        self.sign.add(equation)

    def _freeze(self, value: Value) -> None:
        for block in self.blocks(value):
            self._both({block.overall: 1})
            for slot in block.slots():
                self._both({block.per_unit(slot): 1})

    def _relate(
        self,
        operands: Sequence[tuple[Value, Sequence[Hashable]]],
        out: Sequence[Hashable],
        shape: Sequence[int],
        kind: Literal["product", "sum", "map"],
        degree: Fraction | None,
        parity: Parity,
    ) -> Value:
        first: dict[Hashable, Axis] = {}
        for value, labels in operands:
            for label, axis in zip(labels, value.axes, strict=True):
                if not axis:
                    continue
                if label in first:
                    spaces.unify(spaces.leaves(first[label]), spaces.leaves(axis))
                else:
                    first[label] = axis
        linear = kind != "map" or (degree == 1 and parity == "odd")
        for label, axis in first.items():
            if not linear or not _passes_matrices(kind, operands, label, label in out):
                self.bent.extend(slot.leaf for slot in axis)
        axes = [spaces.slots(spaces.leaves(first.get(label, ()))) for label in out]
        result = self.new(axes, shape)
        varying = list(operands)

        def equations() -> None:
            relation = _Relation(self, varying, result, tuple(out), first)
            relation.write(kind, degree, parity)

        self._deferred.append(equations)
        return result

    def _embed(self, part: Value, whole: Value, axis: int, start: int, step: int) -> None:
        pairs: list[list[tuple[Alternative, Alternative]]] = []
        aligned = True
        for k, (small, big) in enumerate(zip(part.axes, whole.axes, strict=True)):
            inner, outer = spaces.alternatives(small), spaces.alternatives(big)
            if k == axis and big:
                found = [_seen(alt, start, step, part.shape[k]) for alt in outer]
                outer = [alt for alt in found if alt is not None]
                inner.sort(key=lambda alt: alt.offset)
                outer.sort(key=lambda alt: alt.offset)
            if len(inner) != len(outer) or not all(
                len(a.slots) == len(b.slots) and a.same_layout(b)
                for a, b in zip(inner, outer, strict=True)
            ):
                aligned = False
                break
            pairs.append(list(zip(inner, outer, strict=True)))
        if not aligned:
            self._freeze(part)
            self._freeze(whole)
            return
        for combination in itertools.product(*pairs):
            a = self._block(part, tuple(pair[0] for pair in combination))
            b = self._block(whole, tuple(pair[1] for pair in combination))
            self._both({a.overall: 1, b.overall: -1})
            for s, t in zip(a.slots(), b.slots(), strict=True):
                self._both({a.per_unit(s): 1, b.per_unit(t): -1})


@dataclass
class _Relation:
    """The exponent equations of one product, sum or map, written block by block."""

    analysis: Analysis
    operands: list[tuple[Value, Sequence[Hashable]]]
    result: Value
    out: tuple[Hashable, ...]
    first: dict[Hashable, Axis]

    def write(
        self, kind: Literal["product", "sum", "map"], degree: Fraction | None, parity: Parity
    ) -> None:
        """Write the equations, or freeze everything where two axes cannot be compared."""
        tensors = [*self.operands, (self.result, self.out)]
        choices: dict[Hashable, int] = {}
        for label, axis in self.first.items():
            reference = spaces.alternatives(axis)
            choices[label] = len(reference)
            for value, labels in tensors:
                for name, other in zip(labels, value.axes, strict=True):
                    if name == label and other and not _aligned(reference, other):
                        for tensor, _ in tensors:
                            self.analysis._freeze(tensor)
                        return
        cache = [[spaces.alternatives(axis) for axis in value.axes] for value, _ in tensors]
        names = list(choices)
        for numbers in itertools.product(*(range(choices[name]) for name in names)):
            chosen = dict(zip(names, numbers, strict=True))
            blocks = []
            for (value, labels), alternatives in zip(tensors, cache, strict=True):
                axes = tuple(
                    options[chosen[label] if len(options) > 1 else 0]
                    for label, options in zip(labels, alternatives, strict=True)
                )
                blocks.append((self.analysis._block(value, axes), labels))
            self._write_block(blocks, kind, degree, parity)

    def _write_block(
        self,
        blocks: list[tuple[Block, Sequence[Hashable]]],
        kind: Literal["product", "sum", "map"],
        degree: Fraction | None,
        parity: Parity,
    ) -> None:
        exponents = [_exponents(block, labels) for block, labels in blocks]
        result, operands = exponents[-1], exponents[:-1]
        keys = dict.fromkeys(key for table in exponents for key in table)
        for key in keys:
            target = result.get(key)
            if kind == "product":
                equation: dict[Hashable, int] = {}
                for table in operands:
                    if key in table:
                        equation[table[key]] = equation.get(table[key], 0) + 1
                if target is not None:
                    equation[target] = equation.get(target, 0) - 1
                self.analysis._both(equation)
            elif kind == "sum":
                for table, (value, _) in zip(operands, self.operands, strict=True):
                    if value.zero:
                        continue
                    source = table.get(key)
                    pair = {v: c for v, c in ((source, 1), (target, -1)) if v is not None}
                    if source is not target:
                        self.analysis._both(pair)
            else:
                self._write_map(operands[0].get(key), target, degree, parity)

    def _write_map(
        self,
        source: Hashable | None,
        target: Hashable | None,
        degree: Fraction | None,
        parity: Parity,
    ) -> None:
        for system, passes in (
            (self.analysis.scale, degree is not None),
            (self.analysis.sign, parity == "odd"),
        ):
            if passes and source is not None and target is not None:
                factor = -degree if system is self.analysis.scale and degree is not None else -1
                system.add({target: 1, source: factor})
                continue
            if target is not None:
                system.add({target: 1})
            if source is not None and not (
                system is self.analysis.sign and parity == "even" and target is not None
            ):
                system.add({source: 1})


def _passes_matrices(
    kind: str, operands: Sequence[tuple[Value, Sequence[Hashable]]], label: Hashable, kept: bool
) -> bool:
    """Whether a matrix along one label of all operands passes through a linear relation."""
    running = [
        bool(value.axes[list(labels).index(label)]) if label in labels else False
        for value, labels in operands
    ]
    if kind == "product":
        return sum(running) == (1 if kept else 2)
    if kind == "sum":
        return all(runs or value.zero for runs, (value, _) in zip(running, operands, strict=True))
    return kept


def _exponents(block: Block, labels: Sequence[Hashable]) -> dict[Hashable, Hashable]:
    """Return the variables of a block by what they belong to: (label, place) or overall."""
    table: dict[Hashable, Hashable] = {"overall": block.overall}
    for label, axis in zip(labels, block.axes, strict=True):
        for place, slot in enumerate(axis.slots):
            table[(label, place)] = block.per_unit(slot)
    return table


def _aligned(reference: list[Alternative], axis: Axis) -> bool:
    options = spaces.alternatives(axis)
    return len(options) == len(reference) and all(
        len(a.slots) == len(b.slots) and a.same_layout(b)
        for a, b in zip(reference, options, strict=True)
    )


def _seen(alternative: Alternative, start: int, step: int, length: int) -> Alternative | None:
    """Return an alternative as a part of the axis sees it, None if it lies elsewhere."""
    offset, misplaced = divmod(alternative.offset - start, step)
    if misplaced or not 0 <= offset < length or any(s % step for s in alternative.strides):
        return None
    strides = tuple(stride // step for stride in alternative.strides)
    return Alternative(alternative.path, offset, alternative.slots, strides)
