"""Scales that move running statistics and no weight.

A channel of batch norm that no weight leads to, or whose weights are zero, still has a mean and
a variance, and a scale that moves them alone. The mass of the weights says nothing of it, so
the statistics are scaled to mass one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from pyro_bnn.symmetry.balance import balance
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.exponents import LinearSystem
from pyro_bnn.symmetry.group import Family, SymmetryGroup, Term
from pyro_bnn.symmetry.mass_graph import Edge, node_masses
from pyro_bnn.symmetry.translation import null_blocks

Edges = Callable[[SymmetryGroup, Mapping[str, Tensor]], list[Edge]]


@dataclass(frozen=True)
class _Free:
    """A combination of families that moves statistics alone.

    Attributes
    ----------
    shares : dict of str to float
        How much of each family's log scale goes with one of the combination.
    family : Family
        What it does to the statistics.
    units : Tensor, optional
        ``(batch, size)``, the units of which this holds; None for all.
    """

    shares: dict[str, float]
    family: Family
    units: Tensor | None = None


def by_statistics(
    group: SymmetryGroup, params: Mapping[str, Tensor], element: GroupElement, edges_of: Edges
) -> GroupElement:
    """Extend an element by the scales that move running statistics alone.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    element : GroupElement
        What settles all other scales.
    edges_of : callable
        Reduces squared weights to the edges of a graph.

    Returns
    -------
    GroupElement
    """
    moving = [
        family
        for family in group.kind("scale").values()
        if any(term.site in group.statistics for term in family.terms)
    ]
    found = [*_combinations(group, moving), *_without_weights(group, params, moving, edges_of)]
    if not found:
        return element
    shown = {
        site: value.double() + group.offsets.get(site, 0.0)
        for site, value in element.apply(params).items()
        if site in group.statistics
    }
    families = {f"{k}": free.family for k, free in enumerate(found)}
    free_group = replace(group, families=families, statistics=(), translations={})
    edges = edges_of(free_group, shown)
    steps = balance(edges, [free.family.size for free in found]).log_scales
    scales = dict(element.log_scales)
    for free, step in zip(found, steps, strict=True):
        own = step if free.units is None else step.where(free.units, 0.0)
        for name, share in free.shares.items():
            scales[name] = scales.get(name, 0.0) + share * own
    return replace(element, log_scales=scales)


def _combinations(group: SymmetryGroup, moving: list[Family]) -> Iterator[_Free]:
    """Combine families of one space so that no weight moves."""
    null = null_blocks(group)
    spaces = dict.fromkeys((family.space, family.size) for family in moving)
    for space in spaces:
        families = [family for family in moving if (family.space, family.size) == space]
        system = LinearSystem()
        equations: dict[Term, dict[Hashable, Fraction]] = {}
        for family in families:
            system.declare(family.name, 0)
            for term in family.terms:
                if term.site not in group.statistics and (term.site, term.block) not in null:
                    row = equations.setdefault(replace(term, exponent=1.0), {})
                    exponent = Fraction(term.exponent).limit_denominator()
                    row[family.name] = row.get(family.name, Fraction(0)) + exponent
        for row in equations.values():
            system.add(row)
        for free in families:
            if set(system.value(free.name)) != {free.name}:
                continue
            shares = {f.name: float(system.value(f.name).get(free.name, 0)) for f in families}
            terms = tuple(
                replace(term, exponent=shares[family.name] * term.exponent)
                for family in families
                for term in family.terms
                if term.site in group.statistics and shares[family.name]
            )
            yield _Free(
                {name: share for name, share in shares.items() if share},
                replace(free, terms=terms),
            )


def _without_weights(
    group: SymmetryGroup, params: Mapping[str, Tensor], moving: list[Family], edges_of: Edges
) -> Iterator[_Free]:
    """Find the units all of whose weights happen to be zero."""
    if not moving:
        return
    own = replace(group, families={family.name: family for family in moving})
    edges = edges_of(own, params)
    if not edges:
        return
    batch = edges[0].mass.shape[0]
    zero = [edges[0].mass.new_zeros(batch, family.size) for family in moving]
    for node, family in enumerate(moving):
        masses = node_masses(edges, zero, node)
        if not masses:
            continue
        empty = torch.stack(list(masses.values())).sum(0) == 0
        if bool(empty.any()):
            terms = tuple(term for term in family.terms if term.site in group.statistics)
            yield _Free({family.name: 1.0}, replace(family, terms=terms), empty)
