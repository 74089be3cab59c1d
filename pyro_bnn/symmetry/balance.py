"""Matrix balancing: the minimum of a sum of exponentials over the orbits of a scaling group.

The mass of the graph is convex in the log scales and has one minimum, where every unit has as
much incoming as outgoing mass (Osborne, 1960). One sweep minimises over all units of one space
at once, space after space; a Newton step on one number for each space then removes the slow
modes, so that the number of sweeps does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.symmetry.mass_graph import Edge, Powers, contract, masked, power, without_loops
from pyro_bnn.symmetry.without_minimum import unit_mass, without_way_through

CHUNK_ENTRIES = 1 << 21
LARGEST_STEP = 2.0
COMPACT = 0.3


@dataclass(frozen=True)
class Balanced:
    """The result of balancing.

    Attributes
    ----------
    log_scales : list of Tensor
        ``(batch, size)`` for each node.
    residual : Tensor
        ``(batch,)``, largest relative difference between incoming and outgoing mass.
    degenerate : list of Tensor
        ``(batch, size)`` for each node: units whose mass has no minimum, because nothing comes
        in or nothing goes out. They are scaled to unit mass instead.
    sweeps : int
        Sweeps of the slowest draw.
    """

    log_scales: list[Tensor]
    residual: Tensor
    degenerate: list[Tensor]
    sweeps: int


def balance(
    edges: Sequence[Edge],
    sizes: Sequence[int],
    tolerance: float = 1e-12,
    max_sweeps: int = 2000,
    coarse: bool = True,
) -> Balanced:
    """Minimise the mass over all log scales, for every draw.

    Parameters
    ----------
    edges : sequence of Edge
        In float64.
    sizes : sequence of int
        Number of units of each node.
    tolerance : float
        Relative difference of incoming and outgoing mass at which a draw is done.
    max_sweeps : int
        Sweeps after which a draw is left as it is.
    coarse : bool
        Whether to take the Newton step on one number for each node after each sweep.

    Returns
    -------
    Balanced
    """
    batch = edges[0].mass.shape[0] if edges else 0
    entries = max(sum(edge.mass[0].numel() for edge in edges), 1) if batch else 1
    step = max(CHUNK_ENTRIES // entries, 1)
    chunks = [
        _balance_chunk(
            [edge.take(slice(s, s + step)) for edge in edges], sizes, tolerance, max_sweeps, coarse
        )
        for s in range(0, batch, step)
    ]
    nodes = range(len(sizes))
    return Balanced(
        [torch.cat([c.log_scales[k] for c in chunks]) for k in nodes],
        torch.cat([c.residual for c in chunks]) if chunks else torch.zeros(0),
        [torch.cat([c.degenerate[k] for c in chunks]) for k in nodes],
        max((c.sweeps for c in chunks), default=0),
    )


def _balance_chunk(
    edges: Sequence[Edge],
    sizes: Sequence[int],
    tolerance: float,
    max_sweeps: int,
    coarse: bool,
) -> Balanced:
    edges = [without_loops(edge) for edge in edges]
    batch = edges[0].mass.shape[0]
    like = edges[0].mass
    degenerate = without_way_through(edges, sizes)
    live = [masked(edge, degenerate) for edge in edges]
    squares = [like.new_ones(batch, n) for n in sizes]
    residual = like.new_full((batch,), torch.inf)
    active = torch.arange(batch, device=like.device)
    here, v = list(live), [square.clone() for square in squares]
    sweeps = 0
    while len(active) and sweeps < max_sweeps:
        worst, totals = sweep(here, v)
        sweeps += 1
        residual[active] = worst
        done = worst <= tolerance
        if done.all() or done.double().mean() > COMPACT:
            for full, part in zip(squares, v, strict=True):
                full[active[done]] = part[done]
            active = active[~done]
            here = [edge.take(~done) for edge in here]
            v = [part[~done] for part in v]
            totals = totals[~done]
        if coarse and len(active) and len(sizes) > 1:
            coarse_step(here, v, totals)
    for full, part in zip(squares, v, strict=True):
        full[active] = part
    scales = [square.log() / 2 for square in squares]
    if any(bool(mask.any()) for mask in degenerate):
        unit_mass(edges, scales, degenerate)
    return Balanced(scales, residual, degenerate, sweeps)


def sweep(edges: Sequence[Edge], v: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Minimise exactly over the units of each node in turn, in place.

    Parameters
    ----------
    edges : sequence of Edge
    v : list of Tensor
        ``(batch, size)`` squared scales ``exp(2 u)`` of each node: products and square roots
        of them cost a fraction of what exponentials do.

    Returns
    -------
    worst : Tensor
        ``(batch,)``, the largest relative imbalance met on the way.
    totals : Tensor
        ``(batch, edges)``, the scaled mass of each edge at the end.
    """
    worst = v[0].new_zeros(v[0].shape[0])
    totals: list[Tensor] = [worst] * len(edges)
    powers: Powers = {}
    for node in range(len(v)):
        shares = [
            (number, edge.exponents[place], contract(edge, v, place, powers))
            for number, edge in enumerate(edges)
            for place, owner in enumerate(edge.nodes)
            if owner == node
        ]
        if not shares:
            continue
        masses: dict[float, Tensor] = {}
        for _, exponent, share in shares:
            masses[exponent] = masses[exponent] + share if exponent in masses else share
        growth, imbalance = minimum(masses)
        if any(edge.nodes.count(node) > 1 for edge in edges):
            growth = growth.sqrt()
        v[node] = v[node] * growth
        powers = {key: held for key, held in powers.items() if key[0] != node}
        worst = torch.maximum(worst, imbalance.amax(-1))
        factors = {exponent: power(growth, exponent) for exponent in masses}
        for number, exponent, share in shares:
            if max(edges[number].nodes) == node:
                totals[number] = (share * factors[exponent]).sum(-1)
    return worst, torch.stack(totals, dim=-1)


def minimum(masses: dict[float, Tensor]) -> tuple[Tensor, Tensor]:
    """Minimise ``sum_e masses[e] growth^e`` for every unit.

    Returns
    -------
    growth : Tensor
        ``(batch, size)`` of the squared scales, one for units without a minimum.
    imbalance : Tensor
        ``(batch, size)``, ``|incoming - outgoing| / (incoming + outgoing)`` before.
    """
    like = next(iter(masses.values()))
    inward = sum((e * m for e, m in masses.items() if e > 0), like.new_zeros(()))
    outward = sum((-e * m for e, m in masses.items() if e < 0), like.new_zeros(()))
    inward, outward = inward.expand_as(like), outward.expand_as(like)
    bounded = (inward > 0) & (outward > 0)
    if not bool(bounded.all()):
        inward, outward = inward.where(bounded, 1.0), outward.where(bounded, 1.0)
    imbalance = (inward - outward).abs() / (inward + outward)
    up = max((e for e in masses if e > 0), default=1.0)
    down = max((-e for e in masses if e < 0), default=1.0)
    growth = power(outward / inward, 1 / (up + down))
    if len(masses) > 2:
        delta = growth.log() / 2
        for _ in range(20):
            terms = {e: m * (2 * e * delta).exp() for e, m in masses.items()}
            slope = sum((2 * e * m for e, m in terms.items()), like.new_zeros(()))
            bend = sum((4 * e * e * m for e, m in terms.items()), like.new_zeros(()))
            delta = delta - (slope / bend.clamp_min(1e-300)).clamp(-0.5, 0.5).where(bounded, 0.0)
        growth = (2 * delta).exp()
    return growth, imbalance


def coarse_step(edges: Sequence[Edge], v: list[Tensor], weight: Tensor) -> None:
    """Take a Newton step on one number for each node, in place.

    Parameters
    ----------
    edges : sequence of Edge
    v : list of Tensor
        Squared scales.
    weight : Tensor
        ``(batch, edges)``, the scaled mass of each edge.
    """
    count = len(v)
    table = [[0.0] * count for _ in edges]
    for row, edge in zip(table, edges, strict=True):
        for node, exponent in zip(edge.nodes, edge.exponents, strict=True):
            row[node] += exponent
    incidence = torch.tensor(table, dtype=weight.dtype, device=weight.device)
    pairs = (incidence[:, :, None] * incidence[:, None]).flatten(1)
    shift, scaled = weight.new_zeros(weight.shape[0], count), weight
    for _ in range(2):
        gradient = 2 * scaled @ incidence
        hessian = (4 * scaled @ pairs).unflatten(-1, (count, count))
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        diagonal += torch.where(diagonal > 0, 1e-14 * diagonal, 1.0)
        step = torch.linalg.solve_ex(hessian, gradient)[0]
        largest = step.abs().amax(-1, keepdim=True).clamp_min(1e-300)
        step = step * (LARGEST_STEP / largest).clamp_max(1.0)
        shift = shift - torch.nan_to_num(step)
        scaled = weight * (2 * shift @ incidence.T).exp()
    shift = shift * (scaled.sum(-1) <= weight.sum(-1))[:, None]
    growth = (2 * shift).exp()
    for node in range(count):
        v[node] = v[node] * growth[:, node : node + 1]
