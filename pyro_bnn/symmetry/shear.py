"""Coordinates in which a bias has taken up what other weights add to it.

Some generators are linear only after a change of coordinates. The rows of attention sum to one,
so the bias of the values adds ``W_O b_V`` to every output: with ``b_O + W_O b_V`` in the place
of ``b_O``, the function does not see ``b_V`` at all. A sigmoid is a half plus an odd function:
with ``b + W 1 / 2`` in the place of ``b``, the flips of its units are plain signs. Each change
adds to one bias a product of other weights, and is undone by taking the same product off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_bnn.symmetry import action

if TYPE_CHECKING:
    from pyro_bnn.symmetry.group import SymmetryGroup


@dataclass(frozen=True)
class Shear:
    """What one bias takes up.

    Attributes
    ----------
    target : str
        The bias, a site with one axis of more than one point.
    coefficient : float
    weight : str
        Site that carries the source to the target; empty where the source is added as it is.
    out, into : int
        Axes of the weight that run along the target and along the source.
    source : str
        Site whose values are carried; empty for the constant one.
    block : tuple of int
        The placement chosen on each axis of the source.
    """

    target: str
    coefficient: float
    weight: str = ""
    out: int = -1
    into: int = -1
    source: str = ""
    block: tuple[int, ...] = ()


def sheared(
    group: SymmetryGroup, values: Mapping[str, Tensor], *, back: bool = False
) -> dict[str, Tensor]:
    """Change coordinates, or change them back.

    Parameters
    ----------
    group : SymmetryGroup
    values : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    back : bool
        Whether to return to the weights.
    """
    result = dict(values)
    for shear in reversed(group.shears) if back else group.shears:
        if shear.target not in result:
            continue
        target = result[shear.target]
        taken = amount(group, shear, result)
        taken = taken.reshape(taken.shape[0], *target.shape[1:])
        result[shear.target] = target - taken if back else target + taken
    return result


def amount(group: SymmetryGroup, shear: Shear, values: Mapping[str, Tensor]) -> Tensor:
    """Return what a target takes up, ``(batch, size of the target)``."""
    if not shear.weight:
        axis = long_axis(group.shapes[shear.target])
        carried = values[shear.source].flatten(1)[:, positions(group, shear, shear.target, axis)]
        return shear.coefficient * carried
    weight = values[shear.weight]
    if not shear.source:
        return shear.coefficient * weight.movedim(shear.out + 1, 1).flatten(2).sum(-1)
    carried = values[shear.source].flatten(1)[:, positions(group, shear, shear.weight, shear.into)]
    weight = weight.movedim((shear.out + 1, shear.into + 1), (1, 2))
    weight = weight.reshape(*weight.shape[:3], -1).sum(-1)
    return shear.coefficient * (weight @ carried[..., None])[..., 0]


def long_axis(shape: tuple[int, ...]) -> int:
    """Return the only axis of more than one point, -1 if there is not just one."""
    found = [axis for axis, n in enumerate(shape) if n > 1]
    return found[0] if len(found) == 1 else -1


def positions(group: SymmetryGroup, shear: Shear, site: str, axis: int) -> Tensor:
    """Return which entry of the source belongs to each position of an axis."""
    options = [action.places(a) for a in group.layout[shear.source]]
    chosen = [options[k][number] for k, number in enumerate(shear.block)]
    block = action.joint(chosen, group.shapes[shear.source])
    (place,) = action.places(group.layout[site][axis])
    entry = torch.full(place.sizes, block.offset)
    for k, name in enumerate(place.spaces):
        if name in block.spaces:
            shape = [1] * len(place.sizes)
            shape[k] = place.sizes[k]
            step = block.strides[block.spaces.index(name)]
            entry = entry + step * torch.arange(place.sizes[k]).reshape(shape)
    result = torch.empty(entry.numel(), dtype=torch.long)
    result[action.grid(place).reshape(-1)] = entry.reshape(-1)
    return result
