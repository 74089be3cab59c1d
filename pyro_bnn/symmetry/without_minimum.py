"""Units whose mass has no minimum, because nothing comes in or nothing goes out.

Instead of balanced, they are scaled to unit mass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_bnn.symmetry.mass_graph import Edge, masked, node_masses

EVEN_SWEEPS = 50_000
EVEN_TOLERANCE = 1e-14


def without_way_through(edges: Sequence[Edge], sizes: Sequence[int]) -> list[Tensor]:
    """Find the units without incoming or without outgoing mass, until no more are found."""
    like = edges[0].mass
    zero = [like.new_zeros(like.shape[0], n) for n in sizes]
    found = [torch.zeros(like.shape[0], n, dtype=torch.bool, device=like.device) for n in sizes]
    while True:
        live = [masked(edge, found) for edge in edges]
        changed = False
        for node in range(len(sizes)):
            masses = node_masses(live, zero, node)
            inward = [m > 0 for e, m in masses.items() if e > 0]
            outward = [m > 0 for e, m in masses.items() if e < 0]
            if inward and outward:
                now = ~(torch.stack(inward).any(0) & torch.stack(outward).any(0))
            else:
                now = torch.ones_like(found[node])
            if bool((now & ~found[node]).any()):
                changed = True
                found[node] |= now
        if not changed:
            return found


def unit_mass(edges: Sequence[Edge], scales: list[Tensor], degenerate: Sequence[Tensor]) -> None:
    """Scale units without a minimum to unit incoming mass, or else unit outgoing mass, in place.

    Only edges to units that are settled already count, so that the result depends on the orbit
    alone.
    """
    waiting = [mask.clone() for mask in degenerate]
    nodes = list(range(len(scales)))
    left, before = sum(int(mask.sum()) for mask in waiting), -1
    while left and left != before:
        for direction, order in ((1, nodes), (-1, nodes[::-1])):
            for node in order:
                _settle(edges, scales, waiting, node, direction)
        left, before = sum(int(mask.sum()) for mask in waiting), left
    if left:
        _even_out(edges, scales, waiting)


def _settle(
    edges: Sequence[Edge], scales: list[Tensor], waiting: list[Tensor], node: int, direction: int
) -> None:
    """Scale the units of one node to unit mass by their edges of one direction, in place."""
    hidden = list(waiting)
    hidden[node] = torch.zeros_like(waiting[node])
    settled = [masked(edge, hidden) for edge in edges]
    masses = node_masses(settled, scales, node)
    chosen = {e: m for e, m in masses.items() if e * direction > 0}
    if not chosen:
        return
    mass = sum((m for m in chosen.values()), torch.zeros_like(scales[node]))
    ready = waiting[node] & (mass > 0)
    scales[node] += _to_unit(chosen, ready)
    waiting[node] &= ~ready


def _to_unit(masses: dict[float, Tensor], ready: Tensor) -> Tensor:
    """Solve ``sum_e masses[e] exp(2 e delta) = 1`` for exponents of one sign, zero elsewhere."""
    like = next(iter(masses.values()))
    delta = torch.zeros_like(like)
    for _ in range(1 if len(masses) == 1 else 60):
        terms = {e: m.where(ready, 1.0) * (2 * e * delta).exp() for e, m in masses.items()}
        total = sum(terms.values(), torch.zeros_like(like))
        slope = sum((2 * e * m for e, m in terms.items()), torch.zeros_like(like))
        delta = delta - total.log() * total / slope
    return delta.where(ready, 0.0)


def _even_out(edges: Sequence[Edge], scales: list[Tensor], waiting: Sequence[Tensor]) -> None:
    """Settle units that only meet one another, in place.

    Over all entries ``m`` with log scale ``x`` the sum of ``m exp(2 x) - 2 x`` is least: entries
    of one row or column are one on average. It is convex, and depends on the orbit alone.
    """
    cells = [edge.with_mass((edge.mass > 0).to(edge.mass)) for edge in edges]
    zeros = [torch.zeros_like(u) for u in scales]
    for _ in range(EVEN_SWEEPS):
        largest = 0.0
        for node, mask in enumerate(waiting):
            if not bool(mask.any()):
                continue
            masses = node_masses(edges, scales, node)
            if not masses:
                continue
            counts = node_masses(cells, zeros, node)
            twice = any(edge.nodes.count(node) > 1 for edge in edges)
            delta = _even_step(masses, counts, mask) / (2 if twice else 1)
            scales[node] += delta
            largest = max(largest, float(delta.abs().max()))
        if largest < EVEN_TOLERANCE:
            return


def _even_step(
    masses: Mapping[float, Tensor], counts: Mapping[float, Tensor], mask: Tensor
) -> Tensor:
    """Solve ``sum_e e (masses[e] exp(2 e delta) - counts[e]) = 0`` by Newton steps."""
    zero = torch.zeros_like(next(iter(masses.values())))
    ready = mask & (sum((m for m in masses.values()), zero) > 0)
    goal = sum((e * n for e, n in counts.items()), zero)
    delta = zero
    for _ in range(1 if len(masses) == 1 else 30):
        terms = {e: m * (2 * e * delta).exp() for e, m in masses.items()}
        if len(terms) == 1:
            ((e, term),) = terms.items()
            delta = (counts[e] / term).where(ready, 1.0).log() / (2 * e)
            continue
        slope = sum((e * m for e, m in terms.items()), zero) - goal
        bend = sum((2 * e * e * m for e, m in terms.items()), zero).where(ready, 1.0)
        delta = delta - (slope / bend).clamp(-0.5, 0.5)
    return delta.where(ready, 0.0)
