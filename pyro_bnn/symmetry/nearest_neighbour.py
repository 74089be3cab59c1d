"""Labels by similarity to units that have labels already (Wiese et al., 2023).

Made for tanh networks. Each unit is a point, its incoming weights scaled to norm one. The signs
of a space are settled by a hyperplane that keeps the points of all draws at a distance; then
every unit takes the label of the labelled units that it is nearest to, the surest unit of a draw
first.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.overlap import sign_families
from pyro_bnn.symmetry.rows import comparable, rows

MOST_ANCHORS, MOST_POINTS = 50, 4000
CHUNK_ENTRIES = 1 << 22
REGULARISATION = 1e-3


@dataclass(frozen=True)
class Space:
    """What is known of one space.

    Attributes
    ----------
    normal : Tensor, optional
        ``(entries,)``, the normal of the hyperplane, where units flip.
    points : Tensor
        ``(anchors, size, entries)``, the units of the draws that labels are taken from, in the
        order of their labels.
    width : float
        Of the similarity: the median squared distance of a unit to the nearest of another draw.
    """

    normal: Tensor | None
    points: Tensor
    width: float


class NearestNeighbour:
    """The relabelling that is learnt from some draws.

    Parameters
    ----------
    group : SymmetryGroup
        Spaces that are fibred, and those below them, keep their order.
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site: sorted draws, of which the first serve as anchors.
    sign : bool
        Whether signs are settled too.
    rounds : int
        Most rounds in which each anchor is labelled by the others.
    """

    def __init__(
        self,
        group: SymmetryGroup,
        params: Mapping[str, Tensor],
        sign: bool = True,
        rounds: int = 10,
    ) -> None:
        self.group = group
        self.families = sign_families(group) if sign else {}
        self.spaces: dict[str, Space] = {}
        below = {space.over for space in group.permutable.values()}
        plain = [n for n, s in group.permutable.items() if not s.over and n not in below]
        widest = max((group.spaces[name].size for name in plain), default=1)
        count = max(min(MOST_POINTS // widest, MOST_ANCHORS), 2)
        here = {site: params[site][:count].double() for site in group.shapes}
        for name in plain:
            normal = hyperplane(self._points(here, name)) if name in self.families else None
            here, _ = self._flipped(here, name, normal)
            points = self._points(here, name)
            distance = _distances(points.flatten(0, 1), points.flatten(0, 1))
            own = torch.arange(len(points)).repeat_interleave(points.shape[1])
            apart = distance.masked_fill(own[:, None] == own, torch.inf).amin(-1)
            width = float(apart[torch.isfinite(apart)].median()) if len(points) > 1 else 1.0
            order = _agreed(points, max(width, 1e-12), rounds)
            step = GroupElement(group, {name: order}, {}, {}, len(points))
            here = step.apply(here)
            self.spaces[name] = Space(normal, self._points(here, name), max(width, 1e-12))

    def __call__(self, params: Mapping[str, Tensor]) -> tuple[GroupElement, Tensor]:
        """Label draws.

        Returns
        -------
        element : GroupElement
        margin : Tensor
            ``(batch,)``, the least lead of the probability of a unit's label over that of
            another; negative where a surer unit has taken it.
        """
        batch = next(iter(params.values())).shape[0]
        here = {site: params[site].double() for site in self.group.shapes}
        element = self.group.identity(batch)
        margin = torch.full((batch,), torch.inf, dtype=torch.float64)
        for name, space in self.spaces.items():
            here, flip = self._flipped(here, name, space.normal)
            votes = _votes(self._points(here, name), space.points, space.width)
            order = greedy(votes)
            step = GroupElement(self.group, {name: order}, {}, {}, batch)
            here = step.apply(here)
            element = step @ flip @ element
            placed = votes.gather(1, order[..., None].expand_as(votes))
            chosen = placed.diagonal(dim1=1, dim2=2)
            others = placed.diagonal_scatter(chosen - torch.inf, dim1=1, dim2=2)
            margin = torch.minimum(margin, (chosen - others.amax(-1)).amin(-1))
        return element, margin

    def _points(self, params: Mapping[str, Tensor], name: str) -> Tensor:
        """Return the units of a space as points of norm one, ``(batch, size, entries)``."""
        settled = list(itertools.takewhile(lambda other: other != name, self.spaces))
        blocks, ordered = comparable(self.group, name, settled)
        if not ordered:
            return torch.zeros(
                *next(iter(params.values())).shape[:1], self.group.spaces[name].size, 1
            )
        table = torch.cat([rows(self.group, params, where) for where in blocks], dim=-1)
        return torch.nn.functional.normalize(table, dim=-1)

    def _flipped(
        self, params: dict[str, Tensor], name: str, normal: Tensor | None
    ) -> tuple[dict[str, Tensor], GroupElement]:
        """Flip the units of one space that lie behind its hyperplane."""
        batch = next(iter(params.values())).shape[0]
        if normal is None:
            return params, self.group.identity(batch)
        sign = torch.where(self._points(params, name) @ normal < 0, -1, 1)
        flip = GroupElement(self.group, {}, {}, {self.families[name]: sign}, batch)
        return flip.apply(params), flip


def hyperplane(points: Tensor, rounds: int = 20) -> Tensor:
    """Find a hyperplane through the origin that points, each of free sign, keep away from.

    Minimises ``r |w|^2 / 2 + mean(max(0, 1 - |w.v|)^2)``, a support vector machine without
    labels: signs and normal in turn, from the direction of largest spread.

    Parameters
    ----------
    points : Tensor
        ``(..., entries)``.

    Returns
    -------
    Tensor
        ``(entries,)``, the normal, its largest entry positive.
    """
    v = points.flatten(0, -2)
    _, axes = torch.linalg.eigh(v.mT @ v)
    w = axes[:, -1]
    w = w / (v @ w).abs().median().clamp_min(1e-12)
    ridge = REGULARISATION * torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)
    for _ in range(rounds):
        signs = torch.where(v @ w < 0, -1.0, 1.0)
        towards = v * signs[:, None]
        for _ in range(10):
            near = towards[towards @ w < 1]
            curvature = ridge + 2 * near.mT @ near / len(v)
            w = torch.linalg.solve(curvature, 2 * near.sum(0) / len(v))
        if torch.equal(torch.where(v @ w < 0, -1.0, 1.0), signs):
            break
    result: Tensor = w * torch.where(w[w.abs().argmax()] < 0, -1.0, 1.0)
    return result


def greedy(votes: Tensor) -> Tensor:
    """Give out labels, the highest vote first.

    Parameters
    ----------
    votes : Tensor
        ``(batch, units, labels)``.

    Returns
    -------
    Tensor
        ``(batch, labels)``, the unit that takes each label.
    """
    batch, n, _ = votes.shape
    left = votes.clone()
    order = torch.zeros(batch, n, dtype=torch.int64, device=votes.device)
    every = torch.arange(batch, device=votes.device)
    for _ in range(n):
        best = left.flatten(1).argmax(-1)
        unit, label = best // n, best % n
        order[every, label] = unit
        left[every, unit] = -torch.inf
        left[every, :, label] = -torch.inf
    return order


def _agreed(points: Tensor, width: float, rounds: int) -> Tensor:
    """Label each anchor by all others, in turn, until no label changes."""
    count, n, _ = points.shape
    order = torch.arange(n, device=points.device).repeat(count, 1)
    if count < 2:
        return order
    points = points.clone()
    for _ in range(rounds):
        changed = False
        for k in range(count):
            others = torch.cat([points[:k], points[k + 1 :]])
            found = greedy(_votes(points[k : k + 1], others, width))[0]
            changed |= not torch.equal(found, torch.arange(n, device=points.device))
            points[k], order[k] = points[k][found], order[k][found]
        if not changed:
            break
    return order


def _votes(points: Tensor, anchors: Tensor, width: float) -> Tensor:
    """Return the probability of each label for each unit, ``(batch, units, labels)``."""
    count, n, _ = anchors.shape
    step = max(CHUNK_ENTRIES // (count * n * n), 1)
    pieces = []
    for part in points.split(step):
        distance = _distances(part, anchors.flatten(0, 1)).unflatten(-1, (count, n))
        pieces.append((-distance / (2 * width)).logsumexp(-2).softmax(-1))
    return torch.cat(pieces)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances of points of norm one (or zero)."""
    inner = a @ b.mT
    return a.square().sum(-1)[..., None] + b.square().sum(-1) - 2 * inner
