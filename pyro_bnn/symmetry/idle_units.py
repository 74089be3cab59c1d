"""Units that nothing comes in to, or that nothing goes out of.

Their mass has no minimum over the orbit: the one side that is not zero can be scaled away for
ever. The limit is a unit without weights, and the function does not change in the limit either.
It is no point of the orbit, so no scale leads back from it: the element adds what was taken off
instead, and its inverse restores it exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.rows import occurrences, rows
from pyro_bnn.symmetry.scaling import edges_of
from pyro_bnn.symmetry.without_minimum import without_way_through


def take_out(
    group: SymmetryGroup, params: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], GroupElement, Tensor]:
    """Set the weights of idle units to zero.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.

    Returns
    -------
    params : dict of str to Tensor
    element : GroupElement
        It adds what sets the weights to zero.
    count : Tensor
        ``(batch,)``, the number of idle units.
    """
    batch = next(iter(params.values())).shape[0]
    element = group.identity(batch)
    count = torch.zeros(batch)
    families = {
        name: family
        for name, family in group.kind("scale").items()
        if {term.exponent > 0 for term in family.terms} == {True, False}
        and not any(term.site in group.statistics for term in family.terms)
    }
    edges = edges_of(replace(group, families=families), params, None, True)
    if not families or not edges:
        return dict(params), element, count
    idle = without_way_through(edges, [family.size for family in families.values()])
    result = dict(params)
    for mask, family in zip(idle, families.values(), strict=True):
        if not bool(mask.any()):
            continue
        count = count + mask.sum(-1).cpu()
        for term in family.terms:
            value = result[term.site].clone()
            action.multiply_block(group, term, value, (~mask).to(value))
            result[term.site] = value
    for site in group.shapes:
        if result[site] is not params[site]:
            element.added[site] = result[site].double() - params[site].double()
    return result, element, count


def idle_last(group: SymmetryGroup, params: Mapping[str, Tensor]) -> GroupElement:
    """Return the permutations that move units without weights behind all others."""
    batch = next(iter(params.values())).shape[0]
    permutations = {}
    for name in {family.space for family in group.kind("scale").values()}:
        space = group.spaces.get(name)
        if space is None or not space.permutable:
            continue
        tables = [rows(group, params, where) for where in occurrences(group, name)]
        empty = torch.stack([(table == 0).all(-1) for table in tables]).all(0)
        if bool(empty.any()):
            shape = (batch, space.over_size, space.size) if space.over else (batch, space.size)
            permutations[name] = empty.int().reshape(shape).argsort(dim=-1, stable=True)
    return GroupElement(group, permutations, {}, {}, batch)
