"""Translations: what may be added to weights without effect, and the draw without it.

A softmax does not see what its logits have in common, so any vector may be added to all rows of
the weights before it; keys may share any bias; a layer norm takes the mean off. A translation
adds to one block of a site, in sheared coordinates, either anything at all or anything that is
uniform along one of its spaces. The representative is the draw of least norm: zero, or a mean
of zero along that space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.shear import sheared

if TYPE_CHECKING:
    from pyro_bnn.symmetry.element import GroupElement
    from pyro_bnn.symmetry.group import Placement, SymmetryGroup


@dataclass(frozen=True)
class Translation:
    """A block of a site to which something may be added.

    Attributes
    ----------
    name : str
    site : str
    block : tuple of int
        The placement chosen on each axis.
    along : int
        The factor of the block along which what is added is uniform, -1 for none.
    size : int
        Number of parameters.
    """

    name: str
    site: str
    block: tuple[int, ...]
    along: int
    size: int


def joint_block(group: SymmetryGroup, site: str, block: tuple[int, ...]) -> Placement:
    """Return where the entries of a block lie in a flattened site."""
    options = [action.places(axis) for axis in group.layout[site]]
    chosen = [options[k][number] for k, number in enumerate(block)]
    return action.joint(chosen, group.shapes[site])


def null_blocks(group: SymmetryGroup) -> set[tuple[str, tuple[int, ...]]]:
    """Return the blocks, by site, to which anything may be added: they say nothing of a draw."""
    return {(t.site, t.block) for t in group.translations.values() if t.along < 0}


def spread(group: SymmetryGroup, name: str, values: Tensor) -> Tensor:
    """Return what a translation adds, ``(batch, *shape)``, from ``(batch, size)`` parameters."""
    moved = group.translations[name]
    block = joint_block(group, moved.site, moved.block)
    sizes = [1 if k == moved.along else n for k, n in enumerate(block.sizes)]
    shape = group.shapes[moved.site]
    flat = values.new_zeros(values.shape[0], torch.Size(shape).numel())
    table = values.reshape(-1, *sizes).expand(-1, *block.sizes)
    flat[:, action.grid(block).reshape(-1)] = table.reshape(values.shape[0], -1)
    return flat.reshape(-1, *shape)


def part(group: SymmetryGroup, name: str, value: Tensor) -> Tensor:
    """Return the share of a translation in a site ``(batch, *shape)``: ``(batch, size)``."""
    moved = group.translations[name]
    flat = value.reshape(value.shape[0], -1)
    table = flat[:, action.grid(joint_block(group, moved.site, moved.block))]
    if moved.along >= 0:
        table = table.mean(moved.along + 1)
    return table.reshape(value.shape[0], -1)


def parameters(group: SymmetryGroup, added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the parameters of every translation, ``(batch, size)``, from what is added to sites."""
    left = dict(added)
    result = {}
    for name, moved in group.translations.items():
        shape = group.shapes[moved.site]
        value = left.get(moved.site, torch.zeros(1, *shape, dtype=torch.float64))
        result[name] = part(group, name, value)
        left[moved.site] = value - spread(group, name, result[name])
    return result


def added(group: SymmetryGroup, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what translations of given parameters add, ``(batch, *shape)`` for each site."""
    result: dict[str, Tensor] = {}
    for name, moved in group.translations.items():
        share = spread(group, name, values[name])
        result[moved.site] = result[moved.site] + share if moved.site in result else share
    return result


def settle(
    group: SymmetryGroup, params: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], GroupElement]:
    """Take off what translations may add.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.

    Returns
    -------
    params : dict of str to Tensor
    element : GroupElement
    """
    batch = next(iter(params.values())).shape[0]
    element = group.identity(batch)
    if not group.translations:
        return dict(params), element
    before = sheared(group, params)
    after = dict(before)
    for name, moved in group.translations.items():
        value = after[moved.site]
        after[moved.site] = value - spread(group, name, part(group, name, value))
    for site in dict.fromkeys(moved.site for moved in group.translations.values()):
        element.added[site] = after[site].double() - before[site].double()
    return element.apply(params), element
