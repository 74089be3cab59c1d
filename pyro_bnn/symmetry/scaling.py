"""Scaling representatives: minimum mass, and unit norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.balance import balance
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup, Term
from pyro_bnn.symmetry.mass_graph import Edge, node_masses
from pyro_bnn.symmetry.running_statistics import by_statistics
from pyro_bnn.symmetry.translation import null_blocks

Key = tuple[tuple[int, ...], tuple[float, ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Scaled:
    """The scales that lead to a representative.

    Attributes
    ----------
    element : GroupElement
    residual : Tensor
        ``(batch,)``, the largest relative imbalance of a unit that is left.
    degenerate : Tensor
        ``(batch,)``, the number of units whose mass has no minimum over the orbit.
    """

    element: GroupElement
    residual: Tensor
    degenerate: Tensor


def min_mass(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    *,
    precision: Mapping[str, float] | None = None,
    biases: bool = True,
    tolerance: float = 1e-12,
) -> Scaled:
    """Find the scales that minimise the sum of squared weights over the orbit.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    precision : dict of str to float, optional
        Weight of each site's squares: with the prior precisions the representative is the
        most probable point of the orbit. Sites left out count once.
    biases : bool
        Whether sites with one axis count; without them some units may have no minimum.
    tolerance : float
        Relative imbalance of incoming and outgoing mass at which a draw is done.

    Returns
    -------
    Scaled

    References
    ----------
    Laurent et al. (2024), A Symmetry-Aware Exploration of Bayesian Neural Network Posteriors;
    Osborne (1960), On pre-conditioning of matrices.
    """
    names = list(group.kind("scale"))
    batch = next(iter(params.values())).shape[0]
    edges = edges_of(_told(group), params, precision, biases)
    none = Scaled(group.identity(batch), torch.zeros(batch), torch.zeros(batch))
    if not names or not edges:
        return replace(none, element=by_statistics(group, params, none.element, all_edges))
    found = balance(edges, [group.families[name].size for name in names], tolerance)
    element = GroupElement(group, {}, dict(zip(names, found.log_scales, strict=True)), {}, batch)
    element = by_statistics(group, params, element, all_edges)
    degenerate = torch.stack([mask.sum(-1) for mask in found.degenerate]).sum(0)
    return Scaled(element, found.residual, degenerate)


def unit_norm(group: SymmetryGroup, params: Mapping[str, Tensor]) -> Scaled:
    """Scale every unit to incoming weights of norm one, front to back.

    Weights that lead back, along a residual stream or from one step to the next, do not count:
    they wait for units behind. Units without incoming weights keep their scale.
    """
    names = list(group.kind("scale"))
    batch = next(iter(params.values())).shape[0]
    edges = all_edges(group, params)
    none = Scaled(group.identity(batch), torch.zeros(batch), torch.zeros(batch))
    if not names or not edges:
        return replace(none, element=by_statistics(group, params, none.element, all_edges))
    scales = [edges[0].mass.new_zeros(batch, group.families[name].size) for name in names]
    empty = torch.zeros(batch)
    for node, inputs in _front_to_back(edges, len(names)):
        masses = node_masses(inputs, scales, node)
        inward = {e: m for e, m in masses.items() if e > 0}
        for exponent, mass in list(inward.items())[:1]:
            total = mass + sum(m for e, m in inward.items() if e != exponent)
            scales[node] -= total.where(total > 0, 1.0).log() / (2 * exponent)
            empty = empty + (total == 0).sum(-1)
    element = GroupElement(group, {}, dict(zip(names, scales, strict=True)), {}, batch)
    element = by_statistics(group, params, element, all_edges)
    return Scaled(element, torch.zeros(batch), empty)


def _front_to_back(edges: Sequence[Edge], count: int) -> Iterator[tuple[int, list[Edge]]]:
    """Run through the nodes behind those that lead into them, where nothing leads back.

    Each comes with the edges to the ground and to nodes before it.
    """
    sources: list[set[int]] = [set() for _ in range(count)]
    for edge in edges:
        for node, exponent in zip(edge.nodes, edge.exponents, strict=True):
            if exponent > 0:
                sources[node] |= set(edge.nodes) - {node}
    before: set[int] = set()
    waiting = list(range(count))
    while waiting:
        node = next((n for n in waiting if sources[n] <= before), waiting[0])
        waiting.remove(node)
        inputs = [e for e in edges if e.nodes.count(node) == 1 and {*e.nodes} <= {*before, node}]
        before.add(node)
        yield node, inputs


def all_edges(group: SymmetryGroup, params: Mapping[str, Tensor]) -> list[Edge]:
    """Reduce the squared weights, biases and all, each counted once."""
    return edges_of(_told(group), params, None, True)


def _told(group: SymmetryGroup) -> SymmetryGroup:
    """Return a group whose scales leave alone the blocks to which anything may be added.

    They say nothing of a draw; translations make them zero but for rounding.
    """
    null = null_blocks(group)
    if not null:
        return group
    families = {
        name: replace(f, terms=tuple(t for t in f.terms if (t.site, t.block) not in null))
        for name, f in group.families.items()
    }
    return replace(group, families=families)


def edges_of(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    precision: Mapping[str, float] | None,
    biases: bool,
) -> list[Edge]:
    """Reduce the squared weights to what the families of scales tell apart, in float64."""
    nodes = {name: k for k, name in enumerate(group.kind("scale"))}
    blocks: dict[tuple[str, tuple[int, ...]], list[tuple[int, Term]]] = {}
    for name, node in nodes.items():
        for term in group.families[name].terms:
            blocks.setdefault((term.site, term.block), []).append((node, term))
    merged: dict[Key, Tensor] = {}
    for (site, block), terms in blocks.items():
        if site in group.statistics or (not biases and len(group.shapes[site]) < 2):
            continue
        terms = sorted(_combined(terms), key=lambda pair: (pair[0], pair[1].exponent))
        if not terms:
            continue
        mass, axes = _block_mass(group, params[site], site, block, [t for _, t in terms])
        mass = mass * (precision or {}).get(site, 1.0)
        key = (tuple(node for node, _ in terms), tuple(t.exponent for _, t in terms), axes)
        merged[key] = merged[key] + mass if key in merged else mass
    return [Edge(*key, mass.contiguous()) for key, mass in merged.items()]


def _combined(terms: list[tuple[int, Term]]) -> list[tuple[int, Term]]:
    """Add up the exponents with which one family acts on the same factor of a block."""
    merged: dict[tuple[int, int, int], tuple[int, Term]] = {}
    for node, term in terms:
        key = (node, term.axis, term.place)
        if key in merged:
            known = merged[key][1]
            term = Term(
                term.site, term.block, term.axis, term.place, known.exponent + term.exponent
            )
        merged[key] = (node, term)
    return [pair for pair in merged.values() if pair[1].exponent]


def _block_mass(
    group: SymmetryGroup, value: Tensor, site: str, block: tuple[int, ...], terms: list[Term]
) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """Return the squared weights of a block, summed over what no term runs through.

    Returns
    -------
    mass : Tensor
        ``(batch, ...)``.
    axes : tuple of tuple of int
        The axes, without the batch, that each term runs through.
    """
    options = [action.places(axis) for axis in group.layout[site]]
    chosen = [options[k][number] for k, number in enumerate(block)]
    joint = action.joint(chosen, value.shape[1:])
    starts = [sum(len(p.sizes) for p in chosen[:axis]) for axis in range(len(chosen))]
    if all(len(option) == 1 for option in options):
        squares = value.double().square().reshape(value.shape[0], *joint.sizes)
    else:
        squares = value.flatten(1)[:, action.grid(joint)].double().square()
    run: list[tuple[int, ...]] = []
    for term in terms:
        if term.axis < 0:
            run.append(())
            continue
        k = starts[term.axis] + term.place
        space = group.spaces[joint.spaces[k]]
        run.append((joint.spaces.index(space.over), k) if space.over else (k,))
    kept = list(dict.fromkeys(k for axes in run for k in axes))
    dropped = [k + 1 for k in range(len(joint.sizes)) if k not in kept]
    if dropped:
        squares = squares.sum(dropped)
    left = sorted(kept)
    squares = squares.permute(0, *(left.index(k) + 1 for k in kept))
    return squares, tuple(tuple(kept.index(k) for k in axes) for axes in run)
