"""One block of a tensor on which the matrices of alignment act."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.group import SymmetryGroup

Matrices = dict[str, Tensor]


@dataclass(frozen=True)
class Mover:
    """A space that moves.

    Attributes
    ----------
    name : str
    size : int
        Of its matrix: for a fibred space, the points below times those of a fibre.
    base : str
        The space below, empty for an ordinary one.
    below : int
        Number of points of the space below, 1 for an ordinary space.
    free : bool
        Whether the points below move too.
    family : str, optional
        The signs that are decided together with the order.
    """

    name: str
    size: int
    base: str = ""
    below: int = 1
    free: bool = False
    family: str | None = None

    @property
    def fibre(self) -> int:
        """Number of points over each point below."""
        return self.size // self.below


@dataclass(frozen=True)
class Block:
    """One block of a tensor on which matrices act.

    Attributes
    ----------
    movers : tuple of str
        The matrices.
    axes : tuple of str
        Letters of the axes that each matrix acts on: two for a fibred space.
    draws : Tensor
        ``(batch, *sizes, rest)``, the moving axes first.
    fixed : Tensor
        The same of the reference, ``(1 or batch, *sizes, rest)``.
    """

    movers: tuple[str, ...]
    axes: tuple[str, ...]
    draws: Tensor
    fixed: Tensor

    @property
    def letters(self) -> str:
        """Letters of the moving axes."""
        return "".join(sorted(set("".join(self.axes))))

    def gradient(self, place: int, x: Matrices) -> Tensor:
        """Return the derivative by one of its matrices, ``(batch, size, size)``."""
        sizes = dict(zip(self.letters, self.draws.shape[1:-1], strict=True))
        terms, factors = [f"A{self.letters}Z"], [self.draws]
        for k, (name, axes) in enumerate(zip(self.movers, self.axes, strict=True)):
            if k != place:
                each = [sizes[letter] for letter in axes]
                terms.append(f"A{axes.upper()}{axes}")
                factors.append(x[name].reshape(-1, *each, *each))
        shared = self.fixed.shape[0] == 1
        terms.append(f"{'' if shared else 'A'}{self.letters.upper()}Z")
        factors.append(self.fixed[0] if shared else self.fixed)
        own = self.axes[place]
        result: Tensor = torch.einsum(f"{','.join(terms)}->A{own.upper()}{own}", *factors)
        size = math.prod(sizes[letter] for letter in own)
        return result.reshape(-1, size, size)

    def gradient_at(self, place: int, columns: Matrices, signs: Matrices, x: Matrices) -> Tensor:
        """Return the derivative at a vertex `x`, gathering where `gradient` multiplies."""
        if len(self.movers) != 2 or len(self.letters) != 2:
            return self.gradient(place, x)
        other = 1 - place
        rows = self._leading[self.letters.index(self.axes[other])]
        batch, n = rows.shape[:2]
        start = n * torch.arange(batch, device=rows.device)[:, None]
        index = (columns[self.movers[other]] + start).flatten()
        moved = rows.flatten(0, 1).index_select(0, index).reshape(rows.shape)
        if self.movers[other] in signs:
            moved = moved * signs[self.movers[other]][..., None, None]
        # the new places of the other axis and the rest are summed over
        own = 1 + self.letters.index(self.axes[place])
        left = self.fixed.movedim(own, 1).flatten(2)
        return left @ moved.movedim(2, -1).flatten(1, 2)

    @cached_property
    def _leading(self) -> tuple[Tensor, Tensor]:
        """The draws with each of two moving axes leading: whole rows are gathered fastest."""
        return self.draws, self.draws.transpose(1, 2).contiguous()

    def take(self, keep: Tensor) -> Block:
        """Return the block of some draws."""
        fixed = self.fixed if self.fixed.shape[0] == 1 else self.fixed[keep]
        return Block(self.movers, self.axes, self.draws[keep], fixed)


def cut_block(
    group: SymmetryGroup,
    movers: Mapping[str, Mover],
    value: Tensor,
    reference: Tensor,
    site: str,
    chosen: tuple[int, ...],
) -> Block:
    """Cut one block out of draws and reference, moving axes first."""
    options = [action.places(axis) for axis in group.layout[site]]
    joint = action.joint([o[k] for o, k in zip(options, chosen, strict=True)], group.shapes[site])
    spaces = joint.spaces
    covered = {movers[name].base for name in spaces if name in movers}
    acting = [k for k, name in enumerate(spaces) if name in movers and name not in covered]
    order: list[int] = []
    for k in acting:
        base = movers[spaces[k]].base
        order += [j for j in ([spaces.index(base), k] if base else [k]) if j not in order]
    letters = dict(zip(order, string.ascii_lowercase[1:], strict=False))
    axes = []
    for k in acting:
        base = movers[spaces[k]].base
        axes.append((letters[spaces.index(base)] if base else "") + letters[k])
    rest = [k for k in range(len(spaces)) if k not in order]
    sizes = [joint.sizes[k] for k in order]
    grid = action.grid(joint).to(value.device)

    def cut(tensor: Tensor) -> Tensor:
        flat = tensor.double().reshape(-1, math.prod(group.shapes[site]))
        inside = flat[:, grid].permute(0, *(k + 1 for k in [*order, *rest]))
        return inside.reshape(len(flat), *sizes, -1)

    return Block(tuple(spaces[k] for k in acting), tuple(axes), cut(value), cut(reference))
