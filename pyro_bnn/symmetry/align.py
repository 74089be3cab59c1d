"""Alignment: the permutations and signs that bring draws closest to a reference.

Draws are sorted first and Frank-Wolfe starts from the barycentre of the permutations, which has
no labels, so that the result does not depend on the labelling of a draw; weight matching from
the labels as they are does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.frank_wolfe import frank_wolfe
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.overlap import Overlap, nested
from pyro_bnn.symmetry.overlap_block import Matrices
from pyro_bnn.symmetry.weight_matching import weight_matching

CHUNK_ENTRIES = 1 << 21


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
    margin : Tensor
        ``(batch,)``, the loss of cosine similarity to the reference by the cheapest exchange of
        two units of a space (or flip of one): how near the draw is to another order.
    """

    params: dict[str, Tensor]
    element: GroupElement
    overlap: Tensor
    iterations: int
    margin: Tensor


def align(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    *,
    start: str = "barycentre",
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> Aligned:
    """Permute and flip the units of each draw so that it overlaps most with a reference.

    Units within the points of another space (heads, groups of channels) are matched together
    with those points.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    reference : dict of str to Tensor
        ``shape`` for each site, or ``(batch, *shape)``: one for each draw.
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
    own = {site: params[site] for site in group.shapes}
    batch = next(iter(own.values())).shape[0]
    each = sum((s.size * s.over_size) ** 2 for s in group.permutable.values())
    step = max(CHUNK_ENTRIES // max(each, 1), 1)
    permutations: dict[str, list[Tensor]] = {}
    signs: dict[str, list[Tensor]] = {}
    margins, steps = [], 0
    for begin in range(0, batch, step):
        part = {site: values[begin : begin + step] for site, values in own.items()}
        near = {
            site: values[begin : begin + step] if values.ndim > len(group.shapes[site]) else values
            for site, values in reference.items()
        }
        overlap = Overlap(group, part, near)
        found, taken = solve(overlap, start, iterations, tolerance)
        element = overlap.element(group, found)
        for name, permutation in element.permutations.items():
            permutations.setdefault(name, []).append(permutation)
        for name, sign in element.signs.items():
            signs.setdefault(name, []).append(sign)
        margins.append(exchange_margin(overlap, found))
        steps = max(steps, taken)
    element = GroupElement(
        group,
        {name: torch.cat(pieces) for name, pieces in permutations.items()},
        {},
        {name: torch.cat(pieces) for name, pieces in signs.items()},
        batch,
    )
    moved = element.apply(own)
    inner, scale = products(moved, reference, group)
    margin = torch.cat(margins) / scale.clamp_min(1e-300)
    return Aligned({**params, **moved}, element, inner, steps, margin)


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


def solve(
    overlap: Overlap, start: str, iterations: int = 20, tolerance: float = 1e-6
) -> tuple[Matrices, int]:
    """Maximise an overlap over the vertices; return the vertex and the steps taken."""
    if start == "identity" or not overlap.movers:
        x, steps = overlap.identity(), 0
    else:
        x, steps = frank_wolfe(overlap, iterations, tolerance)
    weight_matching(overlap, x)
    return x, steps


def exchange_margin(overlap: Overlap, x: Matrices) -> Tensor:
    """Return what the cheapest exchange of two units costs in overlap, ``(batch,)``.

    Flips count where signs are decided too. Where a tensor runs through a space twice the cost
    is that to first order.
    """
    least = torch.full((overlap.batch,), torch.inf, dtype=torch.float64, device=overlap.device)
    gradients = overlap.gradients_at(x)
    for bundle in overlap.bundles:
        fibres = [mover for mover in bundle if mover.base and mover.free]
        for mover in fibres or bundle:
            # columns in the order of the places that they are assigned: the diagonal is taken
            columns = x[mover.name].abs().argmax(-1)
            score = gradients[mover.name].gather(-1, columns[:, None].expand(-1, mover.size, -1))
            score = score * x[mover.name].sum(-1)[:, None]
            cells = score.reshape(-1, mover.below, mover.fibre, mover.below, mover.fibre)
            cells = cells.diagonal(dim1=1, dim2=3).movedim(-1, 1).flatten(0, 1)
            cost = _exchange_costs(cells, mover.family is not None)
            least = torch.minimum(least, cost.reshape(overlap.batch, -1).amin(-1))
        if fibres:
            gains = gradients[bundle[0].name]
            for mover in fibres:
                gains = gains + nested(gradients[mover.name], mover)[1]
            columns = x[bundle[0].name].argmax(-1)
            score = gains.gather(-1, columns[:, None].expand_as(gains))
            least = torch.minimum(least, _exchange_costs(score, False).amin((-2, -1)))
    return least


def _exchange_costs(score: Tensor, signed: bool) -> Tensor:
    """Return what exchanging each two units costs, and on the diagonal what a flip does."""
    diagonal = score.diagonal(dim1=-2, dim2=-1)
    other = score.abs() if signed else score
    cost = diagonal[..., None] + diagonal[..., None, :] - other - other.mT
    flip = 2 * diagonal if signed else torch.full_like(diagonal, torch.inf)
    return torch.diagonal_scatter(cost, flip, dim1=-2, dim2=-1)


def products(
    params: Mapping[str, Tensor], reference: Mapping[str, Tensor], group: SymmetryGroup
) -> tuple[Tensor, Tensor]:
    """Return the inner product of draws with a reference and the product of the norms."""
    inner, left, right = [], [], []
    for site, shape in group.shapes.items():
        draws = params[site].double().reshape(params[site].shape[0], -1)
        fixed = reference[site].double().reshape(-1, torch.Size(shape).numel())
        inner.append((draws * fixed).sum(-1))
        left.append(draws.square().sum(-1))
        right.append(fixed.square().sum(-1))
    norms = (torch.stack(left).sum(0) * torch.stack(right).sum(0)).sqrt()
    return torch.stack(inner).sum(0), norms
