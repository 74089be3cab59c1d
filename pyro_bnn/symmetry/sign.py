"""The sign representative: the largest incoming weight of every unit is positive."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_bnn.symmetry.action import site_terms
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import Family, SymmetryGroup, Term
from pyro_bnn.symmetry.rows import Occurrence, rows


def positive(
    group: SymmetryGroup, params: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], GroupElement]:
    """Flip units so that their incoming weight of largest modulus is positive.

    Families are settled in order of computation; each is judged in the first site on which it
    acts while all other families there are settled or do not reach its units. The modulus is
    blind to order and to signs, so the rule commutes with permutations.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.

    Returns
    -------
    params : dict of str to Tensor
    element : GroupElement
        The signs that were applied.
    """
    params = dict(params)
    batch = next(iter(params.values())).shape[0]
    total: dict[str, Tensor] = {}
    open_families = dict(group.kind("sign"))
    while open_families:
        name, term = _next(group, open_families)
        family = open_families.pop(name)
        sign = largest_sign(group, params, family, term)
        step = GroupElement(group, {}, {}, {name: sign}, batch)
        params = step.apply(params)
        total[name] = sign
    return params, GroupElement(group, {}, {}, total, batch)


def largest_sign(
    group: SymmetryGroup, params: Mapping[str, Tensor], family: Family, term: Term
) -> Tensor:
    """Return the sign of the entry of largest modulus of each unit, ``(batch, size)``."""
    if term.axis < 0:
        value = params[term.site]
        table = value.reshape(value.shape[0], 1, -1)
    else:
        where = Occurrence(term.site, term.block, term.axis, term.place, frozenset())
        table = rows(group, params, where)
    entry = table.gather(-1, table.abs().argmax(-1, keepdim=True))[..., 0]
    return torch.where(entry < 0, -1, 1).reshape(-1, family.size)


def _next(group: SymmetryGroup, families: Mapping[str, Family]) -> tuple[str, Term]:
    """Return the next family to settle and the block that decides it."""
    for name, family in families.items():
        for term in family.terms:
            others = {other for other, _ in site_terms(group, term.site)} & set(families)
            if others == {name}:
                return name, term
    name, family = next(iter(families.items()))
    return name, family.terms[0]
