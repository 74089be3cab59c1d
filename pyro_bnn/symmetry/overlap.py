"""The overlap of draws with a reference, as a polynomial in the matrices that move the units.

One matrix stands for each space that moves, with a row for each new and a column for each old
place. The overlap, the inner product of the moved draws with the reference, is linear in each
matrix wherever a tensor runs through its space once. A space that is fibred over another (the
units within each head) moves together with the one below it: its matrix acts on all pairs of a
head and a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from pyro_bnn.symmetry.assignment import best_columns, matrix
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.overlap_block import Block, Matrices, Mover, cut_block
from pyro_bnn.symmetry.rows import occurrences


class Overlap:
    """The overlap with a reference as a function of a matrix for each space that moves.

    Parameters
    ----------
    group : SymmetryGroup
        Its layout tells which axes of the tensors move.
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    reference : dict of str to Tensor
        ``shape`` for each site, or ``(batch, *shape)``: one for each draw.
    signed : dict of str to str, optional
        The family of signs that is decided with a space; by default, `sign_families`.
    """

    def __init__(
        self,
        group: SymmetryGroup,
        params: Mapping[str, Tensor],
        reference: Mapping[str, Tensor],
        signed: Mapping[str, str] | None = None,
    ) -> None:
        self.movers = _movers(group, sign_families(group) if signed is None else signed)
        first = next(iter(params.values()))
        self.batch, self.device = first.shape[0], first.device
        self.blocks: list[Block] = []
        self.linear: Matrices = {}
        for site, chosen in _places(group, self.movers):
            block = cut_block(group, self.movers, params[site], reference[site], site, chosen)
            if len(block.movers) > 1:
                self.blocks.append(block)
                continue
            # constant: worth computing once, a first layer may have thousands of inputs
            name, gradient = block.movers[0], block.gradient(0, {})
            self.linear[name] = self.linear[name] + gradient if name in self.linear else gradient
        self.quadratic = all(len(block.movers) == 2 for block in self.blocks)

    @cached_property
    def bundles(self) -> list[list[Mover]]:
        """Spaces that are assigned together: one, or a space below and its fibres."""
        result = {m.name: [m] for m in self.movers.values() if not (m.base and m.free)}
        for mover in self.movers.values():
            if mover.base and mover.free:
                result[mover.base].append(mover)
        return list(result.values())

    def barycentre(self) -> Matrices:
        """Return the mean of all vertices: zero where units may flip."""
        x = {}
        for name, mover in self.movers.items():
            n = mover.fibre if mover.base and not mover.free else mover.size
            level = 0.0 if mover.family is not None else 1.0 / n
            part = torch.full((n, n), level, dtype=torch.float64, device=self.device)
            x[name] = self._repeated(torch.block_diag(*[part] * (mover.size // n)))
        return x

    def identity(self) -> Matrices:
        """Return the vertex that leaves everything where it is."""
        return {
            name: self._repeated(torch.eye(mover.size, dtype=torch.float64, device=self.device))
            for name, mover in self.movers.items()
        }

    def gradients(self, x: Matrices, names: Sequence[str] | None = None) -> Matrices:
        """Return the derivative by each matrix, ``(batch, size, size)``."""
        return self._summed(names, lambda block, place: block.gradient(place, x))

    def gradients_at(self, x: Matrices, names: Sequence[str] | None = None) -> Matrices:
        """Return the derivatives at (signed) permutations: the same as `gradients`, faster."""
        columns = {name: vertex.abs().argmax(-1) for name, vertex in x.items()}
        signs = {n: x[n].sum(-1) for n, mover in self.movers.items() if mover.family is not None}
        return self._summed(names, lambda block, place: block.gradient_at(place, columns, signs, x))

    def value(self, x: Matrices) -> Tensor:
        """Return the overlap of what moves, ``(batch,)``."""
        total = torch.zeros(self.batch, dtype=torch.float64, device=self.device)
        for name, matrix_ in self.linear.items():
            total += (matrix_ * x[name]).flatten(1).sum(-1)
        for block in self.blocks:
            total += (block.gradient(0, x) * x[block.movers[0]]).flatten(1).sum(-1)
        return total

    def vertex(self, gradients: Matrices, bundle: Sequence[Mover]) -> Matrices:
        """Return the vertex of largest inner product with a gradient, for one bundle.

        For a space with fibres the assignment is nested: the best assignment of the units of
        each point to those of each other, and with these gains that of the points.
        """
        first = bundle[0]
        if not first.base and len(bundle) == 1:
            score = gradients[first.name]
            if first.family is None:
                return {first.name: matrix(best_columns(score))}
            return {first.name: matrix(best_columns(score.abs()), score)}
        fibres = [mover for mover in bundle if mover.base]
        inner, gains = {}, gradients[first.name] if not first.base else None
        for mover in fibres:
            inner[mover.name], gain = nested(gradients[mover.name], mover)
            gains = gain if gains is None else gains + gain
        assert gains is not None
        if fibres[0].free:
            outer = best_columns(gains)
        else:
            outer = torch.arange(gains.shape[-1], device=self.device).expand(len(gains), -1)
        result = {} if first.base else {first.name: matrix(outer)}
        for mover in fibres:
            at = outer[..., None, None].expand(-1, -1, 1, mover.fibre)
            within = inner[mover.name].gather(2, at)[:, :, 0]
            whole = (outer[..., None] * mover.fibre + within).flatten(1)
            signs = gradients[mover.name] if mover.family is not None else None
            result[mover.name] = matrix(whole, signs)
        return result

    def linear_in(self, names: Sequence[str]) -> bool:
        """Whether the overlap is linear in some matrices together."""
        return all(sum(n in names for n in block.movers) <= 1 for block in self.blocks)

    def element(self, group: SymmetryGroup, x: Matrices) -> GroupElement:
        """Read a vertex as a group element."""
        permutations, signs = {}, {}
        for name, mover in self.movers.items():
            columns = x[name].abs().argmax(-1)
            if mover.base:
                columns = (columns % mover.fibre).reshape(-1, mover.below, mover.fibre)
            permutations[name] = columns
            if mover.family is not None:
                signs[mover.family] = x[name].sum(-2).round().long()
        return GroupElement(group, permutations, {}, signs, self.batch)

    def take(self, keep: Tensor) -> Overlap:
        """Return the overlap of some draws."""
        result = object.__new__(Overlap)
        result.__dict__ = dict(self.__dict__)
        result.blocks = [block.take(keep) for block in self.blocks]
        result.linear = {name: gradient[keep] for name, gradient in self.linear.items()}
        result.batch = int(keep.sum())
        return result

    def _summed(
        self, names: Sequence[str] | None, derivative: Callable[[Block, int], Tensor]
    ) -> Matrices:
        result: Matrices = {}
        for name in self.movers if names is None else names:
            parts = [
                derivative(block, place)
                for block in self.blocks
                for place, mover in enumerate(block.movers)
                if mover == name
            ]
            if name in self.linear:
                parts.append(self.linear[name])
            n = self.movers[name].size
            empty = torch.zeros(1, n, n, dtype=torch.float64, device=self.device)
            found = sum(parts[1:], parts[0]) if parts else empty
            result[name] = found.expand(self.batch, n, n)
        return result

    def _repeated(self, matrix_: Tensor) -> Tensor:
        return matrix_.expand(self.batch, -1, -1).clone()


def nested(gradient: Tensor, mover: Mover) -> tuple[Tensor, Tensor]:
    """Assign the units of each point below to those of each other.

    Returns
    -------
    columns : Tensor
        ``(batch, below, below, fibre)``.
    gains : Tensor
        ``(batch, below, below)``, the scores of these assignments.
    """
    split = gradient.reshape(-1, mover.below, mover.fibre, mover.below, mover.fibre)
    score = split.transpose(2, 3).reshape(-1, mover.fibre, mover.fibre)
    score = score.abs() if mover.family is not None else score
    columns = best_columns(score)
    gains = score.gather(-1, columns[..., None]).sum((-2, -1))
    shape = (-1, mover.below, mover.below)
    return columns.reshape(*shape, mover.fibre), gains.reshape(shape)


def sign_families(group: SymmetryGroup) -> dict[str, str]:
    """Return the family of signs of each space that has just one, which acts on all of it.

    The signs of a space below others are left out: those of its fibres contain them.
    """
    result = {}
    below = {space.over for space in group.permutable.values()}
    for name, space in group.permutable.items():
        own = [f for f in group.kind("sign").values() if f.space == name]
        if len(own) == 1 and name not in below:
            acted = {(term.site, term.axis) for term in own[0].terms}
            if acted >= set(space.sites):
                result[name] = own[0].name
    return result


def _movers(group: SymmetryGroup, signed: Mapping[str, str]) -> dict[str, Mover]:
    return {
        name: Mover(
            name,
            space.size * space.over_size,
            space.over,
            space.over_size,
            space.over in group.permutable,
            signed.get(name),
        )
        for name, space in group.permutable.items()
    }


def _places(
    group: SymmetryGroup, movers: Mapping[str, Mover]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Run through the blocks of all sites that some space moves."""
    seen = set()
    for name in movers:
        for where in occurrences(group, name):
            if (where.site, where.block) not in seen:
                seen.add((where.site, where.block))
                yield where.site, where.block
