"""The exponent equations of one operator: of a product, a sum, a map, or a concatenation.

They are written block by block, once all spaces are known.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pyro_bnn.symmetry import spaces
from pyro_bnn.symmetry.spaces import Alternative, Axis
from pyro_bnn.symmetry.values import Block, Value

if TYPE_CHECKING:
    from pyro_bnn.symmetry.analysis import Analysis

Kind = Literal["product", "sum", "map"]
Parity = Literal["odd", "even", "none"]


@dataclass
class Relation:
    """The exponent equations of one product, sum or map, written block by block."""

    analysis: Analysis
    operands: list[tuple[Value, Sequence[Hashable]]]
    result: Value
    out: tuple[Hashable, ...]
    first: dict[Hashable, Axis]

    def write(self, kind: Kind, degree: Fraction | None, parity: Parity) -> None:
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
                            self.analysis.freeze_now(tensor)
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
                blocks.append((self.analysis.block(value, axes), labels))
            self._write_block(blocks, kind, degree, parity)

    def _write_block(
        self,
        blocks: list[tuple[Block, Sequence[Hashable]]],
        kind: Kind,
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
                self.analysis.both(equation)
            elif kind == "sum":
                for table, (value, _) in zip(operands, self.operands, strict=True):
                    if value.zero:
                        continue
                    source = table.get(key)
                    pair = {v: c for v, c in ((source, 1), (target, -1)) if v is not None}
                    if source is not target:
                        self.analysis.both(pair)
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


def passes_matrices(
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


def embed(analysis: Analysis, part: Value, whole: Value, axis: int, start: int, step: int) -> None:
    """Tie the exponents of a part to those of the tensor that holds it along an axis."""
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
        analysis.freeze_now(part)
        analysis.freeze_now(whole)
        return
    for combination in itertools.product(*pairs):
        a = analysis.block(part, tuple(pair[0] for pair in combination))
        b = analysis.block(whole, tuple(pair[1] for pair in combination))
        analysis.both({a.overall: 1, b.overall: -1})
        for s, t in zip(a.slots(), b.slots(), strict=True):
            analysis.both({a.per_unit(s): 1, b.per_unit(t): -1})


def _seen(alternative: Alternative, start: int, step: int, length: int) -> Alternative | None:
    """Return an alternative as a part of the axis sees it, None if it lies elsewhere."""
    offset, misplaced = divmod(alternative.offset - start, step)
    if misplaced or not 0 <= offset < length or any(s % step for s in alternative.strides):
        return None
    strides = tuple(stride // step for stride in alternative.strides)
    return Alternative(alternative.path, offset, alternative.slots, strides)
