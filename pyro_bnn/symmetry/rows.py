"""The weights of each unit of a space, as rows that a rule can compare."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.translation import null_blocks


@dataclass(frozen=True)
class Occurrence:
    """One block of a site that runs through a space.

    Attributes
    ----------
    site : str
    block : tuple of int
        The placement chosen on each axis.
    axis, place : int
        The factor that is the space.
    others : frozenset of str
        The other spaces of the block.
    """

    site: str
    block: tuple[int, ...]
    axis: int
    place: int
    others: frozenset[str]


def occurrences(group: SymmetryGroup, space: str) -> Iterator[Occurrence]:
    """Run through the blocks that a space occurs in, in order of computation."""
    for site in dict.fromkeys(site for site, _ in group.spaces[space].sites):
        options = [action.places(axis) for axis in group.layout[site]]
        for block in itertools.product(*(range(len(option)) for option in options)):
            chosen = [options[k][number] for k, number in enumerate(block)]
            found = [
                (axis, place)
                for axis, placement in enumerate(chosen)
                for place, name in enumerate(placement.spaces)
                if name == space
            ]
            names = [name for placement in chosen for name in placement.spaces]
            for axis, place in found:
                others = list(names)
                others.remove(space)
                yield Occurrence(site, block, axis, place, frozenset(others))


def rows(group: SymmetryGroup, params: Mapping[str, Tensor], where: Occurrence) -> Tensor:
    """Return the weights of each unit in one block.

    Returns
    -------
    Tensor
        ``(batch, size, entries)``; ``(batch, over_size * size, entries)`` for a fibred space.
    """
    value = params[where.site]
    axes = group.layout[where.site]
    options = [action.places(axis) for axis in axes]
    chosen = [options[k][number] for k, number in enumerate(where.block)]
    space = group.spaces[chosen[where.axis].spaces[where.place]]
    whole = all(len(option) == 1 for option in options) and len(chosen[where.axis].sizes) == 1
    if whole and not space.over:
        return value.movedim(where.axis + 1, 1).flatten(2) if value.ndim > 2 else value[..., None]
    joint = action.joint(chosen, value.shape[1:])
    block = value.flatten(1)[:, action.grid(joint)]
    k = sum(len(placement.sizes) for placement in chosen[: where.axis]) + where.place
    if not space.over:
        return block.movedim(k + 1, 1).reshape(block.shape[0], space.size, -1)
    below = joint.spaces.index(space.over)
    block = block.movedim((below + 1, k + 1), (1, 2))
    return block.reshape(block.shape[0], space.over_size * space.size, -1)


def entries(group: SymmetryGroup, value: Tensor, site: str, block: tuple[int, ...]) -> Tensor:
    """Return the weights of one block of a site, ``(batch, 1, entries)``."""
    chosen = [action.places(axis)[k] for axis, k in zip(group.layout[site], block, strict=True)]
    grid = action.grid(action.joint(chosen, value.shape[1:]))
    return value.reshape(value.shape[0], -1)[:, grid.reshape(-1)][:, None]


def comparable(
    group: SymmetryGroup, space: str, settled: Collection[str]
) -> tuple[list[Occurrence], bool]:
    """Return the blocks by which the units of a space can be compared.

    Those whose other spaces are settled already (or do not move) come entry by entry. If there
    are none, the blocks that contain unsettled spaces are returned, to be compared by what
    does not depend on the order of their entries.

    Returns
    -------
    blocks : list of Occurrence
        Blocks with more than one entry a unit first.
    ordered : bool
        Whether the order of the entries means something.
    """
    moving = set(group.permutable) - set(settled)
    null = null_blocks(group)
    every = list(occurrences(group, space))
    found = [where for where in every if (where.site, where.block) not in null] or every
    good = [where for where in found if not where.others & moving]
    good = [where for where in good if group.spaces[space].over in {"", *where.others}]
    if not good:
        return found, False
    wide = [where for where in good if where.others - {group.spaces[space].over}]
    return [*wide, *(where for where in good if where not in wide)], True
