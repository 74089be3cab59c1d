"""General linear groups: spaces that are only ever contracted linearly.

Queries meet keys in one product, values meet the output projection in another: any invertible
matrix may stand between them, one for each head. So may it between two linear maps. A frame of
a space multiplies the weights on one side by ``A`` and those on the other by its inverse
transpose. Scales, signs and permutations of the space are among them and are what the quotient
settles; the rest acts too, is certified, and counts in the dimension of the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_bnn.symmetry import action

if TYPE_CHECKING:
    from pyro_bnn.symmetry.element import GroupElement
    from pyro_bnn.symmetry.group import SymmetryGroup, Term


@dataclass(frozen=True)
class Frame:
    """The general linear group of a space.

    Attributes
    ----------
    space : str
    size : int
        Number of points of the space.
    count : int
        Number of matrices: one for each point of the space below.
    terms : tuple of Term
        What is multiplied: by the matrix (exponent 1) or its inverse transpose (-1).
    """

    space: str
    size: int
    count: int
    terms: tuple[Term, ...]


def sample(
    group: SymmetryGroup, generator: torch.Generator | None, batch: int, spread: float
) -> dict[str, Tensor]:
    """Draw matrices near the identity for every frame, ``(batch, count, size, size)``."""
    result = {}
    for name, frame in group.frames.items():
        shape = (batch, frame.count, frame.size, frame.size)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        step = spread * noise / frame.size**0.5
        result[name] = torch.linalg.matrix_exp(step)
    return result


def multiply(element: GroupElement, site: str, value: Tensor) -> Tensor:
    """Multiply one site ``(batch, *shape)`` by the frames of an element."""
    group = element.group
    for name, matrix in element.frames.items():
        for term in group.frames[name].terms:
            if term.site == site:
                own = matrix if term.exponent > 0 else torch.linalg.inv(matrix).mT
                value = _multiply_block(group, term, value, own.to(value))
    return value


def _multiply_block(group: SymmetryGroup, term: Term, value: Tensor, matrix: Tensor) -> Tensor:
    options = [action.places(axis) for axis in group.layout[term.site]]
    chosen = [options[k][number] for k, number in enumerate(term.block)]
    block = action.joint(chosen, value.shape[1:])
    k = sum(len(place.sizes) for place in chosen[: term.axis]) + term.place
    grid = action.grid(block)
    batch = max(value.shape[0], matrix.shape[0])
    flat = value.expand(batch, *value.shape[1:]).reshape(batch, -1).clone()
    table = flat[:, grid]
    base = group.spaces[block.spaces[k]].over
    order = [block.spaces.index(base) + 1, k + 1] if base else [k + 1]
    table = table.movedim(order, list(range(1, len(order) + 1)))
    shape = table.shape
    table = matrix @ table.reshape(batch, matrix.shape[1], matrix.shape[2], -1)
    table = table.reshape(shape).movedim(list(range(1, len(order) + 1)), order)
    flat[:, grid.reshape(-1)] = table.reshape(batch, -1)
    return flat.reshape(batch, *value.shape[1:])


def inverse(element: GroupElement) -> dict[str, Tensor]:
    """Return the frames of the inverse of an element that permutes after it multiplies."""
    result = {}
    for name, matrix in element.frames.items():
        factor = _diagonal(element, name)
        turned = factor[..., None] * torch.linalg.inv(matrix) / factor[..., None, :]
        result[name] = _carried(element, name, turned)
    return result


def compose(second: GroupElement, first: GroupElement) -> dict[str, Tensor]:
    """Return the frames of the element that acts as `first` and then as `second`."""
    from pyro_bnn.symmetry.element import GroupElement

    batch = first.batch
    back = GroupElement(first.group, first.permutations, {}, {}, batch).inverse()
    result = dict(first.frames)
    for name, matrix in second.frames.items():
        factor = _diagonal(first, name)
        turned = _carried(back, name, matrix) * factor[..., None, :] / factor[..., None]
        result[name] = turned @ result[name] if name in result else turned
    return result


def log_abs_det(element: GroupElement) -> Iterator[Tensor]:
    """Run through the log volumes of the frames of an element, each ``(batch,)``."""
    for name, matrix in element.frames.items():
        frame = element.group.frames[name]
        entries = 0.0
        for term in frame.terms:
            sizes = [
                action.places(axis)[number].sizes
                for axis, number in zip(element.group.layout[term.site], term.block, strict=True)
            ]
            total = torch.Size([n for place in sizes for n in place]).numel()
            entries += term.exponent * total / (frame.size * frame.count)
        yield entries * torch.linalg.slogdet(matrix)[1].sum(-1)


def _diagonal(element: GroupElement, name: str) -> Tensor:
    """Return what scales and signs of the space multiply by, ``(batch, count, size)``."""
    frame = element.group.frames[name]
    forward = next(term for term in frame.terms if term.exponent > 0)
    factor = torch.ones(1, frame.count * frame.size, dtype=torch.float64)
    for family in element.group.families.values():
        if family.space != frame.space:
            continue
        for term in family.terms:
            if (term.site, term.block, term.axis, term.place) == (
                forward.site, forward.block, forward.axis, forward.place,
            ):  # fmt: skip
                if family.name in element.log_scales:
                    u = element.log_scales[family.name].double()
                    factor = factor * (term.exponent * u).exp()
                elif family.name in element.signs:
                    factor = factor * element.signs[family.name]
    return factor.reshape(factor.shape[0], frame.count, frame.size)


def _carried(element: GroupElement, name: str, matrix: Tensor) -> Tensor:
    """Move matrices along with the permutation of their space: ``P M P^-1``."""
    frame = element.group.frames[name]
    space = element.group.spaces[frame.space]
    batch = max(matrix.shape[0], element.batch)
    matrix = matrix.expand(batch, *matrix.shape[1:])
    below = element.permutations.get(space.over)
    if below is not None:
        index = below.expand(batch, -1)[..., None, None].expand_as(matrix)
        matrix = matrix.gather(1, index)
    within = element.permutations.get(frame.space)
    if within is not None:
        within = within.reshape(within.shape[0], -1, frame.size).expand(*matrix.shape[:2], -1)
        matrix = matrix.gather(2, within[..., None].expand_as(matrix))
        matrix = matrix.gather(3, within[..., None, :].expand_as(matrix))
    return matrix
