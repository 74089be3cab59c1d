"""Alignment: the permutations and signs that bring draws closest to a reference.

The inner product with the reference is a polynomial in the permutation matrices of all spaces
at once (quadratic for a feed-forward network). It is maximised over doubly stochastic matrices
by Frank-Wolfe from the barycentre of the permutations, with the exact step along each
direction, then rounded by linear assignment and polished one space at a time (the weight
matching of Ainsworth et al., 2023). Draws are sorted first and the barycentre has no labels, so
the result does not depend on the labelling of a draw; weight matching alone does.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.rows import occurrences

Matrices = dict[str, Tensor]
CHUNK = 256


@dataclass(frozen=True)
class Aligned:
    """Draws brought close to a reference.

    Attributes
    ----------
    params : dict of str to Tensor
    element : GroupElement
        What was applied.
    overlap : Tensor
        ``(batch,)``, inner product with the reference.
    iterations : int
        Frank-Wolfe steps of the slowest draw.
    """

    params: dict[str, Tensor]
    element: GroupElement
    overlap: Tensor
    iterations: int


def align(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    *,
    start: str = "barycentre",
    iterations: int = 10,
    tolerance: float = 1e-6,
) -> Aligned:
    """Permute and flip the units of each draw so that it overlaps most with a reference.

    Parameters
    ----------
    group : SymmetryGroup
        Fibred spaces (units within heads or groups) and the spaces below them stay as they are.
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    reference : dict of str to Tensor
        ``shape`` for each site.
    start : {"barycentre", "identity"}
        Frank-Wolfe from the barycentre, or weight matching from the labels as they are.
    iterations : int
        Most Frank-Wolfe steps.
    tolerance : float
        Relative duality gap at which a draw is done.

    Returns
    -------
    Aligned
    """
    batch = next(iter(params.values())).shape[0]
    pieces = []
    for begin in range(0, batch, CHUNK):
        part = {site: params[site][begin : begin + CHUNK] for site in group.shapes}
        pieces.append(_align_chunk(group, part, reference, start, iterations, tolerance))
    permutations = {
        name: torch.cat([p.element.permutations[name] for p in pieces])
        for name in pieces[0].element.permutations
    }
    signs = {
        name: torch.cat([p.element.signs[name] for p in pieces]) for name in pieces[0].element.signs
    }
    element = GroupElement(group, permutations, {}, signs, batch)
    moved = {site: torch.cat([p.params[site] for p in pieces]) for site in group.shapes}
    overlap = torch.cat([p.overlap for p in pieces])
    return Aligned({**params, **moved}, element, overlap, max(piece.iterations for piece in pieces))


def barycentre(
    group: SymmetryGroup, params: Mapping[str, Tensor], rounds: int = 5
) -> dict[str, Tensor]:
    """Align draws to their own mean until it settles (generalised Procrustes analysis).

    Starts from the first draw. The mean of aligned draws is a reference, not a draw.
    """
    reference = {site: params[site][0].double() for site in group.shapes}
    before = -torch.inf
    for _ in range(rounds):
        found = align(group, params, reference)
        reference = {site: found.params[site].double().mean(0) for site in group.shapes}
        now = float(found.overlap.mean())
        if now <= before * (1 + 1e-6):
            break
        before = now
    return reference


class _Objective:
    """The inner product with the reference as a function of matrices for all spaces."""

    def __init__(
        self, group: SymmetryGroup, params: Mapping[str, Tensor], reference: Mapping[str, Tensor]
    ) -> None:
        self.names = [
            name
            for name, space in group.permutable.items()
            if not space.over and all(other.over != name for other in group.spaces.values())
        ]
        self.sizes = {name: group.spaces[name].size for name in self.names}
        self.batch = next(iter(params.values())).shape[0]
        self.signed = {name: _sign_family(group, name) for name in self.names}
        self.blocks: list[tuple[tuple[str, ...], Tensor, Tensor]] = []
        seen = set()
        for name in self.names:
            for where in occurrences(group, name):
                key = (where.site, where.block)
                if key in seen:
                    continue
                seen.add(key)
                self.blocks.append(self._block(group, params, reference, *key))

    def _block(
        self,
        group: SymmetryGroup,
        params: Mapping[str, Tensor],
        reference: Mapping[str, Tensor],
        site: str,
        block: tuple[int, ...],
    ) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """Return a block of draws and reference, moving spaces first, the rest flattened."""
        options = [action.places(axis) for axis in group.layout[site]]
        chosen = [options[k][number] for k, number in enumerate(block)]
        joint = action.joint(chosen, group.shapes[site])
        grid = action.grid(joint)
        moving = [k for k, name in enumerate(joint.spaces) if name in self.names]
        rest = [k for k in range(len(joint.spaces)) if k not in moving]
        order = [*moving, *rest]
        sizes = [joint.sizes[k] for k in moving]
        draws = params[site].double().flatten(1)[:, grid]
        draws = draws.permute(0, *(k + 1 for k in order)).reshape(draws.shape[0], *sizes, -1)
        fixed = reference[site].double().flatten()[grid].permute(order).reshape(*sizes, -1)
        return tuple(joint.spaces[k] for k in moving), draws, fixed

    def gradients(self, x: Matrices, names: list[str] | None = None) -> Matrices:
        """Return the derivative by each matrix, ``(batch, size, size)``, rows: new places."""
        names = self.names if names is None else names
        batch = next(iter(x.values())).shape[0]
        result = {
            n: torch.zeros(batch, self.sizes[n], self.sizes[n], dtype=torch.float64) for n in names
        }
        for spaces, draws, fixed in self.blocks:
            for place, name in enumerate(spaces):
                if name not in result:
                    continue
                moved = draws
                for other, space in enumerate(spaces):
                    if other != place:
                        moved = _multiply(x[space], moved, other)
                old = moved.movedim(place + 1, 1).flatten(2)
                new = fixed.movedim(place, 0).flatten(1)
                result[name] += (old @ new.T).mT
        return result

    def value(self, x: Matrices) -> Tensor:
        """Return the inner product, ``(batch,)``, of the blocks that move."""
        total = torch.zeros(next(iter(x.values())).shape[0], dtype=torch.float64)
        for spaces, draws, fixed in self.blocks:
            moved = draws
            for place, space in enumerate(spaces):
                moved = _multiply(x[space], moved, place)
            total += (moved * fixed).flatten(1).sum(-1)
        return total

    def value_at_vertex(self, x: Matrices) -> Tensor:
        """Return the inner product at (signed) permutation matrices, without multiplying."""
        index = {name: matrix.abs().argmax(-1) for name, matrix in x.items()}
        sign = {name: matrix.sum(-1) for name, matrix in x.items() if self.signed[name]}
        total = torch.zeros(next(iter(x.values())).shape[0], dtype=torch.float64)
        for spaces, draws, fixed in self.blocks:
            moved = draws
            for place, space in enumerate(spaces):
                shape = [moved.shape[0], *[1] * (moved.ndim - 1)]
                shape[place + 1] = index[space].shape[1]
                rows = index[space].reshape(shape).expand_as(moved)
                moved = moved.gather(place + 1, rows)
                if space in sign:
                    moved = moved * sign[space].reshape(shape)
            total += (moved * fixed).flatten(1).sum(-1)
        return total

    def take(self, keep: Tensor) -> _Objective:
        """Return the objective of some draws."""
        result = object.__new__(_Objective)
        result.__dict__ = dict(self.__dict__)
        result.blocks = [(spaces, draws[keep], fixed) for spaces, draws, fixed in self.blocks]
        result.batch = int(keep.sum())
        return result


def _align_chunk(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    start: str,
    iterations: int,
    tolerance: float,
) -> Aligned:
    objective = _Objective(group, params, reference)
    steps = 0
    if start == "identity" or not objective.names:
        x = {
            n: torch.eye(m).double().expand(objective.batch, m, m).clone()
            for n, m in objective.sizes.items()
        }
    else:
        x, steps = _frank_wolfe(objective, iterations, tolerance)
        x = {n: assignment(matrix, objective.signed[n] is not None) for n, matrix in x.items()}
    _polish(objective, x)
    permutations, signs = {}, {}
    for name, matrix in x.items():
        permutations[name] = matrix.abs().argmax(-1)
        family = objective.signed[name]
        if family is not None:
            signs[family] = matrix.sum(-2).round().long()
    element = GroupElement(group, permutations, {}, signs, objective.batch)
    moved = element.apply(params)
    overlap = torch.stack(
        [
            (moved[s].double() * reference[s].double()).reshape(objective.batch, -1).sum(-1)
            for s in group.shapes
        ]
    ).sum(0)
    return Aligned(moved, element, overlap, steps)


def _frank_wolfe(objective: _Objective, iterations: int, tolerance: float) -> tuple[Matrices, int]:
    """Maximise over doubly stochastic matrices, from their barycentre."""
    batch = objective.batch
    x: Matrices = {}
    for name, n in objective.sizes.items():
        level = 0.0 if objective.signed[name] is not None else 1.0 / n
        x[name] = torch.full((batch, n, n), level, dtype=torch.float64)
    result = {name: matrix.clone() for name, matrix in x.items()}
    active = torch.arange(batch)
    value = objective.value(x)
    quadratic = all(len(spaces) <= 2 for spaces, _, _ in objective.blocks)
    steps = 0
    while len(active) and steps < iterations:
        steps += 1
        gradient = objective.gradients(x)
        vertex = {n: assignment(g, objective.signed[n] is not None) for n, g in gradient.items()}
        slope = sum(
            ((gradient[n] * (vertex[n] - x[n])).flatten(1).sum(-1) for n in x),
            torch.zeros(len(active), dtype=torch.float64),
        )
        at_vertex = objective.value_at_vertex(vertex)
        bend = at_vertex - value - slope
        best = torch.where(bend < 0, (-slope / (2 * bend)).clamp(0.0, 1.0), 1.0)
        size = best[:, None, None]
        x = {n: matrix + size * (vertex[n] - matrix) for n, matrix in x.items()}
        value = value + best * slope + best.square() * bend if quadratic else objective.value(x)
        done = slope <= tolerance * at_vertex.abs().clamp_min(1e-300)
        for name, matrix in x.items():
            result[name][active] = matrix
        if done.all():
            break
        if done.any():
            keep = ~done
            active, value = active[keep], value[keep]
            x = {n: matrix[keep] for n, matrix in x.items()}
            objective = objective.take(keep)
    return result, steps


def _polish(objective: _Objective, x: Matrices, sweeps: int = 50) -> None:
    """Match one space at a time until no draw gains, in place."""
    active = torch.arange(objective.batch)
    for _ in range(sweeps):
        gained = torch.zeros(len(active), dtype=torch.bool)
        here = {name: matrix[active] for name, matrix in x.items()}
        for name in objective.names:
            gradient = objective.gradients(here, [name])[name]
            better = assignment(gradient, objective.signed[name] is not None)
            now = (gradient * here[name]).flatten(1).sum(-1)
            then = (gradient * better).flatten(1).sum(-1)
            up = then > now + 1e-10 * now.abs()
            here[name] = torch.where(up[:, None, None], better, here[name])
            gained |= up
        for name, matrix in here.items():
            x[name][active] = matrix
        if not gained.any():
            return
        active = active[gained]
        objective = objective.take(gained)


def assignment(score: Tensor, signed: bool = False) -> Tensor:
    """Return the (signed) permutation matrices of largest score.

    Parameters
    ----------
    score : Tensor
        ``(batch, size, size)``.
    signed : bool
        Whether entries may be -1: then the assignment is that of the absolute scores.

    Returns
    -------
    Tensor
        ``(batch, size, size)``.
    """
    table = (score.abs() if signed else score).numpy()
    columns = np.stack([linear_sum_assignment(one, maximize=True)[1] for one in table])
    index = torch.from_numpy(columns)[..., None]
    result = torch.zeros_like(score).scatter_(-1, index, 1.0)
    if signed:
        result *= torch.where(score < 0, -1.0, 1.0)
    return result


def _multiply(matrix: Tensor, tensor: Tensor, place: int) -> Tensor:
    """Apply ``(batch, new, old)`` matrices along one axis of ``(batch, ...)`` tensors."""
    letters = string.ascii_lowercase[1 : tensor.ndim]
    old = letters[place]
    out = letters.replace(old, "z")
    return torch.einsum(f"az{old},a{letters}->a{out}", matrix, tensor)


def _sign_family(group: SymmetryGroup, space: str) -> str | None:
    """Return the family of signs of a space, if there is just one and it acts on all of it."""
    own = [f for f in group.kind("sign").values() if f.space == space]
    if len(own) != 1:
        return None
    (family,) = own
    acted = {(term.site, term.axis) for term in family.terms}
    return family.name if acted >= set(group.spaces[space].sites) else None
