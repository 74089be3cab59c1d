"""Matrix balancing: the minimum of a sum of exponentials over the orbits of a scaling group.

A graph has one node for each free scale and a ground. An edge of squared weight ``a`` between
units ``i`` and ``j`` contributes ``a exp(2 (e_i u_i + e_j u_j))``; the sum is convex in the log
scales ``u`` and has one minimum where every unit has as much incoming as outgoing mass
(Osborne, 1960). One sweep minimises over all units of one space at once, space after space;
a Newton step on one number for each space then removes the slow modes, so that the number of
sweeps does not grow with depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ENTRIES = 1 << 21
LARGEST_STEP = 2.0
COMPACT = 0.3
EVEN_SWEEPS = 50_000
EVEN_TOLERANCE = 1e-14

Powers = dict[tuple[int, float], Tensor]
"""Powers of the squared scales of the nodes."""


@dataclass(frozen=True)
class Edge:
    """Edges between the units of up to a few spaces.

    Attributes
    ----------
    nodes : tuple of int
        The spaces; one for edges to the ground.
    exponents : tuple of float
        Exponent of each space's scales.
    axes : tuple of tuple of int
        The axes of the mass, counted without the batch, that the units of each node run
        through. Nodes may share axes: the two scales of a depthwise filter do.
    mass : Tensor
        Squared weights, ``(batch, ...)``.
    """

    nodes: tuple[int, ...]
    exponents: tuple[float, ...]
    axes: tuple[tuple[int, ...], ...]
    mass: Tensor

    def take(self, index: Tensor | slice) -> Edge:
        """Return the edges of some draws."""
        return self.with_mass(self.mass[index])

    def with_mass(self, mass: Tensor) -> Edge:
        """Return the same edges with another mass."""
        return Edge(self.nodes, self.exponents, self.axes, mass)

    def spread(self, place: int, values: Tensor) -> Tensor:
        """Reshape ``(batch, size)`` values of one node to broadcast against the mass."""
        axes = self.axes[place]
        shape = [values.shape[0], *[1] * (self.mass.ndim - 1)]
        for axis in axes:
            shape[axis + 1] = self.mass.shape[axis + 1]
        ordered = sorted(axes)
        if list(axes) != ordered:
            values = values.reshape(-1, *(self.mass.shape[axis + 1] for axis in axes))
            values = values.permute(0, *(axes.index(axis) + 1 for axis in ordered))
        return values.reshape(shape)

    def gather(self, place: int, mass: Tensor) -> Tensor:
        """Sum a tensor like the mass over all but one node's units, ``(batch, size)``."""
        axes = self.axes[place]
        dropped = [k + 1 for k in range(mass.ndim - 1) if k not in axes]
        if dropped:
            mass = mass.sum(dropped)
        ordered = sorted(axes)
        mass = mass.permute(0, *(ordered.index(axis) + 1 for axis in axes))
        return mass.reshape(mass.shape[0], -1)


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
    edges = [_without_loops(edge) for edge in edges]
    batch = edges[0].mass.shape[0]
    like = edges[0].mass
    degenerate = without_way_through(edges, sizes)
    live = [_masked(edge, degenerate) for edge in edges]
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
        _unit_mass(edges, scales, degenerate)
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
            (number, edge.exponents[place], _contract(edge, v, place, powers))
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
        powers = {key: power for key, power in powers.items() if key[0] != node}
        worst = torch.maximum(worst, imbalance.amax(-1))
        factors = {exponent: _power(growth, exponent) for exponent in masses}
        for number, exponent, share in shares:
            if max(edges[number].nodes) == node:
                totals[number] = (share * factors[exponent]).sum(-1)
    return worst, torch.stack(totals, dim=-1)


def node_masses(edges: Sequence[Edge], u: Sequence[Tensor], node: int) -> dict[float, Tensor]:
    """Return the scaled mass of each unit of a node by exponent, ``(batch, size)``."""
    masses: dict[float, Tensor] = {}
    v = [(2 * scale).exp() for scale in u]
    for edge in edges:
        for place, owner in enumerate(edge.nodes):
            if owner == node:
                exponent = edge.exponents[place]
                share = _contract(edge, v, place)
                masses[exponent] = masses[exponent] + share if exponent in masses else share
    return masses


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
    growth = _power(outward / inward, 1 / (up + down))
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


def total_mass(edges: Sequence[Edge], u: Sequence[Tensor]) -> Tensor:
    """Return the mass that the scales move, ``(batch,)``."""
    v = [(2 * scale).exp() for scale in u]
    return torch.stack([_contract(edge, v, 0).sum(-1) for edge in edges]).sum(0)


def _power(v: Tensor, exponent: float) -> Tensor:
    """Raise squared scales to a power: cheaply to the powers that networks have."""
    if exponent == 1:
        return v
    if exponent == -1:
        return v.reciprocal()
    return v.sqrt() if exponent == 0.5 else v.pow(exponent)


def _contract(edge: Edge, v: Sequence[Tensor], keep: int, powers: Powers | None = None) -> Tensor:
    """Scale the mass of an edge and sum over all units but those of one place."""
    powers = {} if powers is None else powers
    factors = []
    for key in zip(edge.nodes, edge.exponents, strict=True):
        if key not in powers:
            powers[key] = _power(v[key[0]], key[1])
        factors.append(powers[key])
    own = factors[keep]
    if edge.axes == ((0,),):
        return edge.mass * own
    if edge.axes == ((0,), (1,)):
        # a row vector times a matrix: batched, several times as fast as matrix times column
        mass = edge.mass.mT if keep == 0 else edge.mass
        return (factors[1 - keep][:, None] @ mass)[:, 0] * own
    mass = edge.mass
    for place, factor in enumerate(factors):
        if place != keep:
            mass = mass * edge.spread(place, factor)
    return edge.gather(keep, mass) * own


def _without_loops(edge: Edge) -> Edge:
    """Drop the edges of units to themselves: they do not move."""
    loops = edge.axes == ((0,), (1,)) and edge.nodes[0] == edge.nodes[1]
    if loops and not sum(edge.exponents):
        mass = edge.mass.clone()
        mass.diagonal(dim1=-2, dim2=-1).zero_()
        return edge.with_mass(mass)
    return edge


def without_way_through(edges: Sequence[Edge], sizes: Sequence[int]) -> list[Tensor]:
    """Find the units without incoming or without outgoing mass, until no more are found."""
    like = edges[0].mass
    zero = [like.new_zeros(like.shape[0], n) for n in sizes]
    found = [torch.zeros(like.shape[0], n, dtype=torch.bool, device=like.device) for n in sizes]
    while True:
        live = [_masked(edge, found) for edge in edges]
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


def _masked(edge: Edge, hidden: Sequence[Tensor]) -> Edge:
    """Drop the edges of some units."""
    mass = edge.mass
    for place, node in enumerate(edge.nodes):
        if bool(hidden[node].any()):
            mass = mass.masked_fill(edge.spread(place, hidden[node]), 0.0)
    return edge.with_mass(mass)


def _unit_mass(edges: Sequence[Edge], scales: list[Tensor], degenerate: Sequence[Tensor]) -> None:
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
    settled = [_masked(edge, hidden) for edge in edges]
    masses = node_masses(settled, scales, node)
    chosen = {e: m for e, m in masses.items() if e * direction > 0}
    if not chosen:
        return
    mass = sum((m for m in chosen.values()), torch.zeros_like(scales[node]))
    ready = waiting[node] & (mass > 0)
    scales[node] += _to_unit(chosen, ready)
    waiting[node] &= ~ready


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
