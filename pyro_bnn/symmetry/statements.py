"""What a symmetry group says about draws: statistics with known expectations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.symmetry.group import Family, SymmetryGroup
from pyro_bnn.symmetry.rows import Occurrence, entries, occurrences, rows

__all__ = ["Params", "Statement", "statements", "unit_sums"]

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Statement:
    """An identity before it meets draws: a statistic with a known expectation.

    Attributes
    ----------
    kind : str
        ``virial``, ``stein``, ``output-shift`` or ``exchangeability``.
    where : str
        A hidden space, a family of scales or a site.
    expectation : Tensor
        ``(units,)``.
    statistic : callable
        From draws and the gradient of their log prior, ``(batch, *shape)`` for each site, to
        ``(batch, units)``.
    """

    kind: str
    where: str
    expectation: Tensor
    statistic: Callable[[Params, Params], Tensor]


def statements(group: SymmetryGroup, normal: frozenset[str]) -> list[Statement]:
    """List what a group says about draws.

    Parameters
    ----------
    group : SymmetryGroup
    normal : frozenset of str
        Sites whose prior is normal and centred at zero.
    """
    ones = {site: torch.ones(1, *shape) for site, shape in group.shapes.items()}
    found = []
    families = group.kind("scale")
    for name, family in families.items():
        sites = {term.site for term in family.terms}
        if sites & set(group.statistics):
            continue  # of weights alone it is none: the norm's eps does not scale with them
        alone = sum(other.space == family.space for other in families.values()) == 1
        found.append(
            Statement(
                "virial" if sites <= normal else "stein",
                family.space if family.space and alone else name,
                unit_sums(group, family, ones)[0],
                _scaling(group, family),
            )
        )
    for site, axis in group.shifts.items():
        units = torch.Size(group.shapes[site]).numel() // group.shapes[site][axis]
        found.append(Statement("output-shift", site, torch.ones(units), _shift(site, axis)))
    for name, space in group.permutable.items():
        if group.preserves_prior.get(name, False):
            chance = torch.full((space.over_size * space.size,), 1 / space.size)
            found.append(Statement("exchangeability", name, chance, _extreme(group, name)))
    return found


def unit_sums(group: SymmetryGroup, family: Family, values: Params) -> Tensor:
    """Sum values over the weights that each unit of a family scales, times the exponents.

    Parameters
    ----------
    group : SymmetryGroup
    family : Family
    values : dict of str to Tensor
        ``(batch, *shape)`` for each site.

    Returns
    -------
    Tensor
        ``(batch, size)``.
    """
    like = next(iter(values.values()))
    total = torch.zeros(like.shape[0], family.size, dtype=torch.float64, device=like.device)
    for term in family.terms:
        if term.site in group.statistics:
            continue
        if term.axis < 0:
            table = entries(group, values[term.site], term.site, term.block)
        else:
            where = Occurrence(term.site, term.block, term.axis, term.place, frozenset())
            table = rows(group, values, where)
        total = total + term.exponent * table.double().sum(-1)
    return total


def _scaling(group: SymmetryGroup, family: Family) -> Callable[[Params, Params], Tensor]:
    sites = list(dict.fromkeys(term.site for term in family.terms))

    def statistic(draws: Params, score: Params) -> Tensor:
        return unit_sums(group, family, {site: -draws[site] * score[site] for site in sites})

    return statistic


def _shift(site: str, axis: int) -> Callable[[Params, Params], Tensor]:
    """Take the mean over the outputs times its own direction: a field of divergence one."""

    def statistic(draws: Params, score: Params) -> Tensor:
        values = -draws[site].mean(axis + 1) * score[site].sum(axis + 1)
        return values.reshape(values.shape[0], -1)

    return statistic


def _extreme(group: SymmetryGroup, name: str) -> Callable[[Params, Params], Tensor]:
    """Mark the unit of largest norm, one in each fibre."""
    space = group.spaces[name]
    found = [where for where in occurrences(group, name) if where.site not in group.statistics]

    def statistic(draws: Params, _: Params) -> Tensor:
        squares = torch.stack([rows(group, draws, w).double().square().sum(-1) for w in found])
        norms = squares.sum(0).unflatten(-1, (space.over_size, space.size))
        marks = torch.zeros_like(norms).scatter(-1, norms.argmax(-1, keepdim=True), 1.0)
        return marks.flatten(1)

    return statistic
