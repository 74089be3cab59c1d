"""How a group element acts on one site: gather along axes, multiply blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro_bnn.symmetry.element import GroupElement
    from pyro_bnn.symmetry.group import Factor, Placement, SymmetryGroup, Term


def act(element: GroupElement, site: str, value: Tensor) -> Tensor:
    """Multiply by frames, signs and scales, then permute.

    Parameters
    ----------
    element : GroupElement
    site : str
    value : Tensor
        ``(batch, *shape)``.
    """
    from pyro_bnn.symmetry.frames import multiply

    value = _multiplied(element, site, multiply(element, site, value))
    group = element.group
    axes = group.layout[site]
    names = [[p.spaces for p in places(axis)] for axis in axes]
    used = {n for axis in names for spaces in axis for n in spaces if n in element.permutations}
    if not used:
        return value
    for name in used:
        base = group.spaces[name].over
        if base and any(name in spaces and base not in spaces for axis in names for spaces in axis):
            return _permuted_jointly(element, site, value)
    for number, axis in enumerate(axes):
        if any(n in used for spaces in names[number] for n in spaces):
            index = axis_index(element, axis).to(value.device)
            batch = max(value.shape[0], index.shape[0])
            shape = [1] * value.ndim
            shape[0], shape[number + 1] = index.shape
            whole = (batch, *value.shape[1:])
            value = value.expand(whole).gather(number + 1, index.reshape(shape).expand(whole))
    return value


def axis_index(element: GroupElement, axis: tuple[Factor, ...]) -> Tensor:
    """Return which position of an axis lands at each position, ``(batch, size)``."""
    size = 1
    for factor in axis:
        size *= factor.size
    index = torch.arange(size).expand(element.batch, size).clone()
    for place in places(axis):
        source = torch.full((element.batch, *place.sizes), place.offset)
        coordinates = [_source(element, place, k) for k in range(len(place.spaces))]
        for coordinate, stride in zip(coordinates, place.strides, strict=True):
            source = source + coordinate * stride
        index[:, grid(place).reshape(-1)] = source.reshape(element.batch, -1)
    return index


def _source(element: GroupElement, place: Placement, k: int) -> Tensor:
    """Return where coordinate `k` of a placement comes from, to broadcast over its grid."""
    name, n = place.spaces[k], place.sizes[k]
    shape = [1] * (len(place.sizes) + 1)
    permutation = element.permutations.get(name)
    if permutation is None:
        shape[k + 1] = n
        return torch.arange(n).reshape(shape)
    permutation = permutation.cpu()
    shape[0] = permutation.shape[0]
    base = element.group.spaces[name].over
    if base:
        below = place.spaces.index(base)
        shape[below + 1], shape[k + 1] = place.sizes[below], n
        if below > k:
            permutation = permutation.transpose(1, 2)
    else:
        shape[k + 1] = n
    return permutation.reshape(shape)


def _permuted_jointly(element: GroupElement, site: str, value: Tensor) -> Tensor:
    """Permute where a space and the one below it lie on different axes."""
    axes = element.group.layout[site]
    shape = value.shape[1:]
    batch = max(element.batch, value.shape[0])
    index = torch.arange(shape.numel()).expand(batch, -1).clone()
    for combination in itertools.product(*(places(axis) for axis in axes)):
        block = joint(combination, shape)
        source = torch.full((element.batch, *block.sizes), block.offset)
        for k, stride in enumerate(block.strides):
            source = source + _source(element, block, k) * stride
        index[:, grid(block).reshape(-1)] = source.reshape(element.batch, -1)
    flat = value.reshape(value.shape[0], -1).expand(batch, -1)
    return flat.gather(1, index.to(value.device)).reshape(batch, *shape)


def joint(chosen: Sequence[Placement], shape: Sequence[int]) -> Placement:
    """Return one placement for all axes of a tensor, flattened."""
    from pyro_bnn.symmetry.group import Placement

    strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    return Placement(
        sum(p.offset * s for p, s in zip(chosen, strides, strict=True)),
        tuple(name for p in chosen for name in p.spaces),
        tuple(size for p in chosen for size in p.sizes),
        tuple(t * s for p, s in zip(chosen, strides, strict=True) for t in p.strides),
    )


def _multiplied(element: GroupElement, site: str, value: Tensor) -> Tensor:
    terms = site_terms(element.group, site)
    owned = False
    offset = element.group.offsets.get(site, 0.0)
    for name, term in terms:
        factor = _factor(element, name, term.exponent)
        if factor is None:
            continue
        factor = factor.to(
            device=value.device, dtype=torch.promote_types(value.dtype, torch.float32)
        )
        if not owned:
            batch = max(value.shape[0], element.batch)
            dtype = torch.promote_types(value.dtype, torch.float32)
            value = value.expand(batch, *value.shape[1:]).to(
                dtype, copy=True, memory_format=torch.contiguous_format
            )
            owned = True
            value += offset
        multiply_block(element.group, term, value, factor)
    if owned and offset:
        value -= offset
    return value


def _factor(element: GroupElement, name: str, exponent: float) -> Tensor | None:
    """Return what a family multiplies a block by, ``(batch, size)``."""
    if name in element.log_scales:
        return (element.log_scales[name].double() * exponent).exp()
    return element.signs.get(name)


def multiply_block(group: SymmetryGroup, term: Term, value: Tensor, factor: Tensor) -> None:
    """Multiply one block of a site in place by a factor for each unit, ``(batch, size)``."""
    axes = group.layout[term.site]
    options = [places(axis) for axis in axes]
    chosen = [options[k][number] for k, number in enumerate(term.block)]
    whole = all(len(option) == 1 for option in options)
    if whole and len(chosen[term.axis].sizes if term.axis >= 0 else ()) <= 1:
        if term.axis < 0:
            value *= factor.reshape(-1, *[1] * (value.ndim - 1))
            return
        space = group.spaces.get(chosen[term.axis].spaces[0])
        if space is None or not space.over:
            shape = [1] * value.ndim
            shape[0], shape[term.axis + 1] = factor.shape
            value *= factor.reshape(shape)
            return
    block = joint(chosen, value.shape[1:])
    spread = spread_factor(group, term, chosen, factor).expand(-1, *block.sizes)
    flat = value.view(value.shape[0], -1)
    flat[:, grid(block).reshape(-1)] *= spread.reshape(factor.shape[0], -1)


def spread_factor(
    group: SymmetryGroup, term: Term, chosen: Sequence[Placement], factor: Tensor
) -> Tensor:
    """Reshape a factor ``(batch, size)`` to broadcast over the grid of a block."""
    sizes = [size for place in chosen for size in place.sizes]
    shape = [factor.shape[0], *[1] * len(sizes)]
    if term.axis < 0:
        return factor.reshape(shape)
    names = [name for place in chosen for name in place.spaces]
    k = sum(len(place.sizes) for place in chosen[: term.axis]) + term.place
    space = group.spaces.get(names[k])
    if space is not None and space.over and factor.shape[1] == space.size * space.over_size:
        below = names.index(space.over)
        factor = factor.reshape(-1, space.over_size, space.size)
        shape[below + 1] = space.over_size
        if below > k:
            factor = factor.transpose(1, 2)
    shape[k + 1] = sizes[k]
    return factor.reshape(shape)


def invert(element: GroupElement, name: str) -> Tensor:
    """Return the inverse of the permutation of one space."""
    permutation = element.permutations[name]
    inverse = permutation.argsort(-1)
    base = element.group.spaces[name].over
    if base and base in element.permutations:
        below = element.permutations[base].argsort(-1)
        inverse = inverse.gather(1, below[..., None].expand_as(inverse))
    return inverse


def compose(second: GroupElement, first: GroupElement, name: str) -> Tensor:
    """Return the permutation of one space that is `first`, then `second`."""
    a, b = first.permutations.get(name), second.permutations.get(name)
    base = second.group.spaces[name].over
    if a is not None and base and base in second.permutations:
        below = second.permutations[base]
        a = a.expand(max(a.shape[0], below.shape[0]), -1, -1)
        a = a.gather(1, below[..., None].expand_as(a))
    if a is None or b is None:
        result = a if a is not None else b
        assert result is not None
        return result
    shape = _broadcast(a.shape, b.shape)
    return a.expand(shape).gather(-1, b.expand(shape))


def carry(element: GroupElement, family: str, values: Tensor) -> Tensor:
    """Move the parameters of a family ``(batch, size)`` along with the permutation."""
    space = element.group.spaces.get(element.group.families[family].space)
    if space is None:
        return values
    permutation = element.permutations.get(space.name)
    if not space.over:
        if permutation is None:
            return values
        shape = _broadcast(values.shape, permutation.shape)
        return values.expand(shape).gather(1, permutation.expand(shape))
    table = values.reshape(values.shape[0], space.over_size, space.size)
    below = element.permutations.get(space.over)
    if below is not None:
        shape = _broadcast(table.shape, (below.shape[0], 1, 1))
        table = table.expand(shape).gather(1, below[..., None].expand(shape))
    if permutation is not None:
        shape = _broadcast(table.shape, permutation.shape)
        table = table.expand(shape).gather(2, permutation.expand(shape))
    return table.reshape(table.shape[0], -1)


def multiplicity(group: SymmetryGroup, name: str) -> float:
    """Return by how much the log volume grows with each log scale of a family."""
    family = group.families[name]
    total = 0.0
    for term in family.terms:
        options = [places(axis) for axis in group.layout[term.site]]
        entries = 1
        for k, number in enumerate(term.block):
            for size in options[k][number].sizes:
                entries *= size
        total += term.exponent * entries / family.size
    return total


def site_terms(group: SymmetryGroup, site: str) -> list[tuple[str, Term]]:
    """Return the terms of all families that act on one site."""
    return [
        (f.name, term) for f in group.families.values() for term in f.terms if term.site == site
    ]


@lru_cache(maxsize=4096)
def places(axis: tuple[Factor, ...]) -> tuple[Placement, ...]:
    """Return the placements of an axis, remembered."""
    from pyro_bnn.symmetry.group import placements

    return tuple(placements(axis))


@lru_cache(maxsize=1024)
def grid(place: Placement) -> Tensor:
    """Return the positions of a placement on the grid of its spaces."""
    positions = torch.full(place.sizes, place.offset)
    for k, (n, stride) in enumerate(zip(place.sizes, place.strides, strict=True)):
        shape = [1] * len(place.sizes)
        shape[k] = n
        positions = positions + torch.arange(n).reshape(shape) * stride
    return positions


def _broadcast(*shapes: Sequence[int]) -> torch.Size:
    """Return the shape that shapes broadcast to."""
    result: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return result
