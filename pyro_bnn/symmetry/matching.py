"""Matching of draws to a reference: a given draw, the first one, the barycentre, or the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pyro_bnn.symmetry.activation_matching import Activations
from pyro_bnn.symmetry.align import Aligned, align, barycentre
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.nearest_neighbour import NearestNeighbour
from pyro_bnn.symmetry.shear import sheared

Method = Literal["align", "weight-matching", "activation-matching", "nearest-neighbour"]
Reference = Literal["barycentre", "first", "previous"]
REFERENCE_DRAWS = 200
REFERENCE_ENTRIES = 1 << 22
CHUNK_ENTRIES = 1 << 20


@dataclass(frozen=True)
class Matched:
    """What matches a batch of draws to their reference.

    Attributes
    ----------
    element : GroupElement
    margin : Tensor
        ``(batch,)``, how near each draw is to another order.
    last : dict of str to Tensor, optional
        Where each draw is matched to the one before it: what the next draw of each chain is to
        be matched to, ``(chain, ...)``, NaN in chains without a finite draw so far.
    """

    element: GroupElement
    margin: Tensor
    last: dict[str, Tensor] | None = None


class Matcher:
    """Matches draws to a reference, which it may learn from the first draws that it sees.

    Parameters
    ----------
    group : SymmetryGroup
    method : {"align", "weight-matching", "activation-matching", "nearest-neighbour"}
    reference : dict of str to Tensor or {"barycentre", "first", "previous"}
    sign : bool
        Whether nearest neighbours settle signs as well.
    activations : Activations, optional
        What units are matched by, in the place of their weights.
    """

    def __init__(
        self,
        group: SymmetryGroup,
        method: Method,
        reference: Mapping[str, Tensor] | Reference,
        sign: bool = True,
        activations: Activations | None = None,
    ) -> None:
        self.whole, self.group = group, replace(group, shears=())
        self.method, self.sign = method, sign
        self.reference = reference
        self.activations = activations
        self._target: dict[str, Tensor] | None = None
        self._neighbours: NearestNeighbour | None = None

    def __call__(
        self,
        params: Mapping[str, Tensor],
        finite: Tensor,
        chains: int = 1,
        after: Mapping[str, Tensor] | None = None,
    ) -> Matched:
        """Match draws.

        Parameters
        ----------
        params : dict of str to Tensor
            ``(chain * draw, *shape)`` for each site, in the group's sheared coordinates.
        finite : Tensor
            ``(chain * draw,)``, which draws count.
        chains : int
        after : dict of str to Tensor, optional
            The `Matched.last` of the draws before these.
        """
        if self.method == "nearest-neighbour":
            if self._neighbours is None:
                seen = {site: params[site][finite] for site in self.group.shapes}
                self._neighbours = NearestNeighbour(self.group, seen, self.sign)
            return Matched(*self._neighbours(params))
        if self.reference == "previous":
            return self._followed(params, finite, chains, after)
        if self._target is None:
            self._target = self._learnt(params, finite)
        found = self._aligned(params, self._target)
        return Matched(found.element, found.margin)

    def _learnt(self, params: Mapping[str, Tensor], finite: Tensor) -> dict[str, Tensor]:
        """Return what to match to, as weights or as activations."""
        if not isinstance(self.reference, str):
            given = {site: self.reference[site].cpu()[None] for site in self.group.shapes}
            seen = self._features(sheared(self.whole, given))
            return {name: value[0] for name, value in seen.items()}
        each = self.activations.entries if self.activations is not None else 1
        count = 1 if self.reference == "first" else max(REFERENCE_ENTRIES // each, 2)
        draws = finite.nonzero().flatten()[: min(count, REFERENCE_DRAWS)]
        if not len(draws):
            draws = torch.zeros(1, dtype=torch.int64, device=finite.device)
        seen = self._features({site: params[site][draws] for site in self.group.shapes})
        if self.reference == "first":
            return {name: value[0] for name, value in seen.items()}
        return barycentre(self._layout, seen)

    @property
    def _layout(self) -> SymmetryGroup:
        return self.group if self.activations is None else self.activations.group

    def _features(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.activations is None:
            return {site: params[site] for site in self.group.shapes}
        return self.activations(sheared(self.whole, params, back=True))

    def _aligned(self, params: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Aligned:
        """Align draws by their features; one target, or one for each draw."""
        start = "identity" if self.method == "weight-matching" else "barycentre"
        batch = next(iter(params.values())).shape[0]
        each = self.activations.entries if self.activations is not None else 1
        step = max(CHUNK_ENTRIES // each, 1)
        single = all(target[name].ndim == len(s) for name, s in self._layout.shapes.items())
        pieces = []
        for begin in range(0, batch, step):
            part = slice(begin, begin + step)
            features = self._features({site: params[site][part] for site in self.group.shapes})
            near = target if single else {name: value[part] for name, value in target.items()}
            pieces.append(align(self._layout, features, near, start=start))
        whole = _joined(pieces)
        return replace(whole, element=replace(whole.element, group=self.group))

    def _followed(
        self,
        params: Mapping[str, Tensor],
        finite: Tensor,
        chains: int,
        after: Mapping[str, Tensor] | None,
    ) -> Matched:
        """Match each draw to the one before it in its chain."""
        draws = len(finite) // chains
        grid = {
            s: params[s].reshape(chains, draws, *params[s].shape[1:]) for s in self.group.shapes
        }
        good = finite.reshape(chains, draws)
        last = dict(after) if after is not None else None
        elements, margins = [], []
        for draw in range(draws):
            here = {site: values[:, draw] for site, values in grid.items()}
            if last is None:
                features = self._features(here)
                last = {name: torch.full_like(v, torch.nan) for name, v in features.items()}
            known = torch.stack(
                [v.reshape(chains, -1).isfinite().all(1) for v in last.values()]
            ).all(0)
            target = {
                name: v.nan_to_num().reshape(chains, *v.shape[1:]) for name, v in last.items()
            }
            found = self._aligned(here, target)
            element = spared(found.element, ~(known & good[:, draw]))
            moved = self._features(element.apply(here))
            last = {
                name: torch.where(
                    good[:, draw].reshape(-1, *[1] * (v.ndim - 1)), moved[name].to(v.dtype), v
                )
                for name, v in last.items()
            }
            elements.append(element)
            margins.append(torch.where(known, found.margin, torch.inf))
        element = GroupElement(
            self.group,
            {
                n: torch.stack([e.permutations[n] for e in elements], 1).flatten(0, 1)
                for n in elements[0].permutations
            },
            {},
            {
                n: torch.stack([e.signs[n] for e in elements], 1).flatten(0, 1)
                for n in elements[0].signs
            },
            chains * draws,
        )
        return Matched(element, torch.stack(margins, 1).flatten(), last)


def spared(element: GroupElement, left: Tensor) -> GroupElement:
    """Let a matching leave some draws as they are."""
    permutations = {}
    for name, permutation in element.permutations.items():
        same = torch.arange(permutation.shape[-1], device=permutation.device)
        mask = left.reshape(-1, *[1] * (permutation.ndim - 1))
        permutations[name] = torch.where(mask, same, permutation)
    signs = {n: s.masked_fill(left[:, None], 1) for n, s in element.signs.items()}
    return replace(element, permutations=permutations, signs=signs)


def _joined(pieces: list[Aligned]) -> Aligned:
    """Join the alignments of consecutive draws."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0].element
    element = GroupElement(
        first.group,
        {n: torch.cat([p.element.permutations[n] for p in pieces]) for n in first.permutations},
        {},
        {n: torch.cat([p.element.signs[n] for p in pieces]) for n in first.signs},
        sum(p.element.batch for p in pieces),
    )
    return Aligned(
        {name: torch.cat([p.params[name] for p in pieces]) for name in pieces[0].params},
        element,
        torch.cat([p.overlap for p in pieces]),
        max(p.iterations for p in pieces),
        torch.cat([p.margin for p in pieces]),
    )
