"""Group elements: what acts on a batch of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_bnn.symmetry import action, frames
from pyro_bnn.symmetry.shear import sheared

if TYPE_CHECKING:
    from pyro_bnn.symmetry.group import SymmetryGroup


@dataclass(frozen=True, eq=False)
class GroupElement:
    """A batch of elements of a symmetry group.

    An element first multiplies by its frames, its signs and its scales, then permutes, then
    adds; all of this in the sheared coordinates of the group, which are the weights themselves
    for most networks. The unit that lands at place ``i`` of a space is the one from place
    ``permutation[i]``, as ``isel`` would have it.

    Attributes
    ----------
    group : SymmetryGroup
    permutations : dict of str to Tensor
        ``(batch, size)`` for each permuted space; ``(batch, over_size, size)`` for fibred ones,
        row ``i`` for the point that lands at place ``i`` of the space below. Missing: identity.
    log_scales : dict of str to Tensor
        ``(batch, size)`` for each family of scales. Missing: zero.
    signs : dict of str to Tensor
        ``(batch, size)`` of 1 and -1 for each family of signs. Missing: one.
    batch : int
    added : dict of str to Tensor
        ``(batch, *shape)`` for each site that something is added to: by translations, or taken
        off units without effect. Missing: zero.
    frames : dict of str to Tensor
        ``(batch, count, size, size)`` for each general linear group. Missing: identity.
    """

    group: SymmetryGroup
    permutations: dict[str, Tensor]
    log_scales: dict[str, Tensor]
    signs: dict[str, Tensor]
    batch: int
    added: dict[str, Tensor] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Act on weights.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(batch, *shape)`` for each site of the group; other entries pass unchanged.

        Returns
        -------
        dict of str to Tensor
        """
        turned = bool(self.group.shears and (self.signs or self.added))
        result = sheared(self.group, params) if turned else dict(params)
        result = self._affine(result)
        return sheared(self.group, result, back=True) if turned else result

    def inverse(self) -> GroupElement:
        """Return the inverse."""
        backward = {name: action.invert(self, name) for name in self.permutations}
        bare = GroupElement(self.group, self.permutations, {}, {}, self.batch)
        scales = {n: -action.carry(bare, n, u) for n, u in self.log_scales.items()}
        signs = {n: action.carry(bare, n, s) for n, s in self.signs.items()}
        linear = GroupElement(
            self.group, backward, scales, signs, self.batch, {}, frames.inverse(self)
        )
        added = {s: -r for s, r in linear._linear(self.added).items()}
        return GroupElement(self.group, backward, scales, signs, self.batch, added, linear.frames)

    def __matmul__(self, first: GroupElement) -> GroupElement:
        """Return the element that acts as `first` and then as this one."""
        batch = max(self.batch, first.batch)
        permutations = {
            name: action.compose(self, first, name)
            for name in dict.fromkeys([*first.permutations, *self.permutations])
        }
        back = GroupElement(self.group, first.permutations, {}, {}, first.batch).inverse()
        scales = {n: action.carry(back, n, u) for n, u in self.log_scales.items()}
        for name, u in first.log_scales.items():
            scales[name] = scales[name] + u if name in scales else u
        signs = {n: action.carry(back, n, s) for n, s in self.signs.items()}
        for name, s in first.signs.items():
            signs[name] = signs[name] * s if name in signs else s
        added = self._linear(first.added)
        for site, r in self.added.items():
            added[site] = added[site] + r if site in added else r
        turned = frames.compose(self, first)
        return GroupElement(self.group, permutations, scales, signs, batch, added, turned)

    @property
    def log_abs_det(self) -> Tensor:
        """Logarithm of the volume factor of each element, ``(batch,)``."""
        total = torch.zeros(self.batch, dtype=torch.float64)
        for name, u in self.log_scales.items():
            total = total + u.double().sum(-1) * action.multiplicity(self.group, name)
        for share in frames.log_abs_det(self):
            total = total + share
        return total

    def __getitem__(self, index: slice | Tensor) -> GroupElement:
        """Return some elements of the batch."""
        batch = int(torch.arange(self.batch)[index].numel())

        def taken(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[index] for name, values in table.items()}

        return GroupElement(
            self.group,
            taken(self.permutations),
            taken(self.log_scales),
            taken(self.signs),
            batch,
            taken(self.added),
            taken(self.frames),
        )

    def _linear(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply and permute, in sheared coordinates."""
        result = dict(values)
        for site in self.group.shapes:
            if site in values:
                result[site] = action.act(self, site, values[site])
        return result

    def _affine(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply, permute and add, in sheared coordinates."""
        result = self._linear(values)
        for site, r in self.added.items():
            if site in result:
                wide = torch.promote_types(result[site].dtype, torch.float32)
                result[site] = result[site].to(wide) + r.to(result[site].device, wide)
        return result
