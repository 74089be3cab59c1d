"""Group elements: permutations, scales and signs that act on a batch of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_bnn.symmetry import action

if TYPE_CHECKING:
    from pyro_bnn.symmetry.group import SymmetryGroup


@dataclass(frozen=True, eq=False)
class GroupElement:
    """A batch of elements of a symmetry group.

    An element first multiplies by its signs and scales, then permutes: the unit that lands at
    place ``i`` of a space is the one from place ``permutation[i]``, as ``isel`` would have it.

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
    """

    group: SymmetryGroup
    permutations: dict[str, Tensor]
    log_scales: dict[str, Tensor]
    signs: dict[str, Tensor]
    batch: int

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
        result = dict(params)
        for site in self.group.shapes:
            if site in params:
                result[site] = action.act(self, site, params[site])
        return result

    def inverse(self) -> GroupElement:
        """Return the inverse."""
        backward = {name: action.invert(self, name) for name in self.permutations}
        bare = GroupElement(self.group, self.permutations, {}, {}, self.batch)
        scales = {n: -action.carry(bare, n, u) for n, u in self.log_scales.items()}
        signs = {n: action.carry(bare, n, s) for n, s in self.signs.items()}
        return GroupElement(self.group, backward, scales, signs, self.batch)

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
        return GroupElement(self.group, permutations, scales, signs, batch)

    @property
    def log_abs_det(self) -> Tensor:
        """Logarithm of the volume factor of each element, ``(batch,)``."""
        total = torch.zeros(self.batch, dtype=torch.float64)
        for name, u in self.log_scales.items():
            total = total + u.double().sum(-1) * action.multiplicity(self.group, name)
        return total

    def __getitem__(self, index: slice | Tensor) -> GroupElement:
        """Return some elements of the batch."""
        permutations = {n: p[index] for n, p in self.permutations.items()}
        scales = {n: u[index] for n, u in self.log_scales.items()}
        signs = {n: s[index] for n, s in self.signs.items()}
        batch = int(torch.arange(self.batch)[index].numel())
        return GroupElement(self.group, permutations, scales, signs, batch)
