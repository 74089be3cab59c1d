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
from typing import Any

from torch import Tensor
from torch.fx import Node

from pyro_bnn.symmetry import relations, spaces
from pyro_bnn.symmetry.exponents import LinearSystem
from pyro_bnn.symmetry.relations import Kind, Parity
from pyro_bnn.symmetry.spaces import Alternative, Axis, Leaf
from pyro_bnn.symmetry.values import Block, Path, Value

PARAMETER_PRIORITY = 1 << 60


@dataclass(frozen=True)
class Mixing:
    """What one operator compares: the spaces along some axes, at each point of the others."""

    compared: tuple[Leaf, ...]
    kept: tuple[Leaf, ...]


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
    mixed : list of Mixing
        What operators compare along some axes of a tensor, point by point of the others.
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
    mixed: list[Mixing] = field(default_factory=list)
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
                        self.both({block.per_unit(slot): 1})

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
        self._deferred.append(lambda: self.freeze_now(value))

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
        compared = {axis % len(value.shape) for axis in axes}
        sides: tuple[list[Leaf], list[Leaf]] = ([], [])
        for k, axis in enumerate(value.axes):
            sides[k in compared].extend(spaces.leaves(axis))
        self.mixed.append(Mixing(compared=tuple(sides[1]), kept=tuple(sides[0])))

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
                relations.embed(self, part, whole, axis, start, step)

        self._deferred.append(equations)

    def solve(self) -> None:
        """Add up the exponent equations of everything read so far."""
        for equations in self._deferred:
            equations()
        self._deferred.clear()

    def blocks(self, value: Value) -> Iterator[Block]:
        """Run through the blocks of a tensor, declaring their variables."""
        for axes in itertools.product(*(spaces.alternatives(axis) for axis in value.axes)):
            yield self.block(value, axes)

    # Exponent equations ------------------------------------------------------------------

    def block(self, value: Value, axes: tuple[Alternative, ...]) -> Block:
        """Return one block of a tensor, declaring its variables."""
        path: Path = frozenset().union(*(axis.path for axis in axes))
        block = Block(value.owner, path, axes)
        priority = value.owner + PARAMETER_PRIORITY * (value.owner in self._parameters)
        for system in (self.scale, self.sign):
            system.declare(block.overall, priority)
            for slot in block.slots():
                system.declare(block.per_unit(slot), priority)
        return block

    def both(self, equation: Mapping[Hashable, int]) -> None:
        """Add an equation for scales and for signs."""
        self.scale.add(equation)
        self.sign.add(equation)

    def freeze_now(self, value: Value) -> None:
        """Let neither scale nor sign through a tensor whose spaces are known."""
        for block in self.blocks(value):
            self.both({block.overall: 1})
            for slot in block.slots():
                self.both({block.per_unit(slot): 1})

    def _relate(
        self,
        operands: Sequence[tuple[Value, Sequence[Hashable]]],
        out: Sequence[Hashable],
        shape: Sequence[int],
        kind: Kind,
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
            if not linear or not relations.passes_matrices(kind, operands, label, label in out):
                self.bent.extend(slot.leaf for slot in axis)
        axes = [spaces.slots(spaces.leaves(first.get(label, ()))) for label in out]
        result = self.new(axes, shape)
        varying = list(operands)

        def equations() -> None:
            relation = relations.Relation(self, varying, result, tuple(out), first)
            relation.write(kind, degree, parity)

        self._deferred.append(equations)
        return result
