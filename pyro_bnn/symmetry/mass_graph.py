"""The graph of masses: what scales of hidden units do to a sum of squared weights.

It has one node for each free scale and a ground. An edge of squared weight ``a`` between units
``i`` and ``j`` contributes ``a exp(2 (e_i u_i + e_j u_j))`` at log scales ``u``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def node_masses(edges: Sequence[Edge], u: Sequence[Tensor], node: int) -> dict[float, Tensor]:
    """Return the scaled mass of each unit of a node by exponent, ``(batch, size)``."""
    masses: dict[float, Tensor] = {}
    v = [(2 * scale).exp() for scale in u]
    for edge in edges:
        for place, owner in enumerate(edge.nodes):
            if owner == node:
                exponent = edge.exponents[place]
                share = contract(edge, v, place)
                masses[exponent] = masses[exponent] + share if exponent in masses else share
    return masses


def total_mass(edges: Sequence[Edge], u: Sequence[Tensor]) -> Tensor:
    """Return the mass that the scales move, ``(batch,)``."""
    v = [(2 * scale).exp() for scale in u]
    return torch.stack([contract(edge, v, 0).sum(-1) for edge in edges]).sum(0)


def contract(edge: Edge, v: Sequence[Tensor], keep: int, powers: Powers | None = None) -> Tensor:
    """Scale the mass of an edge and sum over all units but those of one place."""
    powers = {} if powers is None else powers
    factors = []
    for key in zip(edge.nodes, edge.exponents, strict=True):
        if key not in powers:
            powers[key] = power(v[key[0]], key[1])
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


def power(v: Tensor, exponent: float) -> Tensor:
    """Raise squared scales to a power: cheaply to the powers that networks have."""
    if exponent == 1:
        return v
    if exponent == -1:
        return v.reciprocal()
    return v.sqrt() if exponent == 0.5 else v.pow(exponent)


def masked(edge: Edge, hidden: Sequence[Tensor]) -> Edge:
    """Drop the edges of some units."""
    mass = edge.mass
    for place, node in enumerate(edge.nodes):
        if bool(hidden[node].any()):
            mass = mass.masked_fill(edge.spread(place, hidden[node]), 0.0)
    return edge.with_mass(mass)


def without_loops(edge: Edge) -> Edge:
    """Drop the edges of units to themselves: they do not move."""
    loops = edge.axes == ((0,), (1,)) and edge.nodes[0] == edge.nodes[1]
    if loops and not sum(edge.exponents):
        mass = edge.mass.clone()
        mass.diagonal(dim1=-2, dim2=-1).zero_()
        return edge.with_mass(mass)
    return edge
