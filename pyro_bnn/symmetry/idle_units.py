"""Units that nothing comes in to, or that nothing goes out of.

Their mass has no minimum over the orbit: the one side that is not zero can be scaled away for
ever. The limit is a unit without weights, and the function does not change in the limit either.
It is no point of the orbit, so no scale leads back from it: the element adds what was taken off
instead, and its inverse restores it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pyro_bnn.symmetry import action
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import Family, SymmetryGroup
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
    families = {n: f for n, f in between(group).items() if n not in group.singular}
    edges = edges_of(replace(group, families=families), params, None, True)
    if not families or not edges:
        return dict(params), element, count
    idle = without_way_through(edges, [family.size for family in families.values()])
    result = dict(params)
    for mask, family in zip(idle, families.values(), strict=True):
        if not bool(mask.any()):
            continue
        count = count + mask.sum(-1).cpu()
        result = emptied(group, result, family, mask)
    for site in group.shapes:
        if result[site] is not params[site]:
            element.added[site] = result[site].double() - params[site].double()
    return result, element, count


def between(group: SymmetryGroup) -> dict[str, Family]:
    """Return the scales of units with something that comes in and something that goes out."""
    return {
        name: family
        for name, family in group.kind("scale").items()
        if {term.exponent > 0 for term in family.terms} == {True, False}
        and not any(term.site in group.statistics for term in family.terms)
    }


def emptied(
    group: SymmetryGroup, params: Mapping[str, Tensor], family: Family, mask: Tensor
) -> dict[str, Tensor]:
    """Return the weights with those of the units of a mask ``(batch, size)`` set to zero."""
    result = dict(params)
    for term in family.terms:
        value = result[term.site].clone()
        action.multiply_block(group, term, value, (~mask).to(value))
        result[term.site] = value
    return result


def singular(
    group: SymmetryGroup, point: Mapping[str, Tensor], finite: Callable[[dict[str, Tensor]], bool]
) -> tuple[str, ...]:
    """Name the scales whose units cannot be emptied, since the function has no value there.

    An example is a norm with a learned epsilon, which is zero over zero.

    Parameters
    ----------
    group : SymmetryGroup
    point : dict of str to Tensor
        Generic weights, ``(1, *shape)`` for each site.
    finite : callable
        Whether the function has finite values at weights like `point`.

    Returns
    -------
    tuple of str
        All other scales may be emptied together.
    """
    families = between(group)
    everything = {
        name: torch.ones(1, family.size, dtype=torch.bool) for name, family in families.items()
    }
    whole = dict(point)
    for name, family in families.items():
        whole = emptied(group, whole, family, everything[name])
    if finite(whole):
        return ()
    found = []
    kept = dict(point)
    for name, family in families.items():
        tried = emptied(group, kept, family, everything[name])
        if finite(tried):
            kept = tried
        else:
            found.append(name)
    return tuple(found)


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
