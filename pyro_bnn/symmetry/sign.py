"""The sign representative: the largest incoming weight of every unit is positive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_bnn.symmetry.action import site_terms
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import Family, SymmetryGroup, Term
from pyro_bnn.symmetry.rows import Occurrence, entries, rows
from pyro_bnn.symmetry.translation import joint_block, null_blocks

TIE = 1e-9


def positive(
    group: SymmetryGroup, params: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], GroupElement]:
    """Flip units so that their incoming weight of largest modulus is positive.

    Families are settled in order of computation; each is judged in the first site on which it
    acts while all other families there are settled, and units without weights there in the next
    one. Families that never act alone are settled together. The modulus is blind to order and to
    signs, so the rule commutes with permutations.

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
        found = _next(group, open_families)
        if found is None:
            signs = entangled_signs(group, params, list(open_families))
            open_families.clear()
        else:
            name, terms = found
            signs = {name: largest_sign(group, params, open_families.pop(name), terms)}
        params = GroupElement(group, {}, {}, signs, batch).apply(params)
        total |= signs
    return params, GroupElement(group, {}, {}, total, batch)


def largest_sign(
    group: SymmetryGroup, params: Mapping[str, Tensor], family: Family, terms: Sequence[Term]
) -> Tensor:
    """Return the sign of the entry of largest modulus of each unit, ``(batch, size)``.

    The first term counts where a unit is not zero. Of entries that are equal but for rounding the
    first counts: a mean of zero over two classes makes pairs of them.
    """
    result = _sign_in(group, params, terms[0])
    for term in terms[1:]:
        if bool((result != 0).all()):
            break
        result = torch.where(result == 0, _sign_in(group, params, term), result)
    return torch.where(result < 0, -1, 1).reshape(-1, family.size)


def _sign_in(group: SymmetryGroup, params: Mapping[str, Tensor], term: Term) -> Tensor:
    """Return the sign of the largest entry of each unit in one block, zero where all are zero."""
    if term.axis < 0:
        table = entries(group, params[term.site], term.site, term.block)
    else:
        where = Occurrence(term.site, term.block, term.axis, term.place, frozenset())
        table = rows(group, params, where)
    modulus = table.abs()
    near = modulus >= (1 - TIE) * modulus.amax(-1, keepdim=True)
    return table.gather(-1, near.int().argmax(-1, keepdim=True))[..., 0].sign()


def entangled_signs(
    group: SymmetryGroup, params: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """Settle families that never act alone on any site.

    The weights are gone through site by site in order of falling modulus, which is blind to
    signs and to order (balanced scales make weights of different sites equal in modulus); each
    that is not yet bound by those before it is made positive.

    Returns
    -------
    dict of str to Tensor
        ``(batch, size)`` of signs for each family.
    """
    sizes = [group.families[name].size for name in names]
    sites = [s for s in group.shapes if any(n in names for n, _ in site_terms(group, s))]
    masks = _characters(group, names, sites)
    tables = [params[site].reshape(len(params[site]), -1) for site in sites]
    values = torch.cat(tables, dim=1)
    starts = [sum(t.shape[1] for t in tables[:k]) for k in range(len(tables))]
    orders = torch.cat([_falling(t.abs()) + n for t, n in zip(tables, starts, strict=True)], dim=1)
    result = torch.ones(values.shape[0], sum(sizes), dtype=torch.int64)
    rank = len(_eliminate(masks, [0] * len(masks), len(masks)))
    for draw, row in enumerate(values):
        order = [k for k in orders[draw].tolist() if row[k] != 0]
        negative = (row < 0).tolist()
        basis = _eliminate([masks[k] for k in order], [negative[k] for k in order], rank)
        for pivot in sorted(basis):
            mask, flip = basis[pivot]
            others = mask & ~(1 << pivot)
            for k in range(pivot):
                if others >> k & 1 and result[draw, k] < 0:
                    flip = not flip
            result[draw, pivot] = -1 if flip else 1
    return dict(zip(names, result.split(sizes, dim=1), strict=True))


def _falling(modulus: Tensor) -> Tensor:
    """Return the order of falling modulus; what is equal but for rounding keeps its order."""
    values, order = modulus.sort(descending=True)
    drop = values[:, 1:] < (1 - TIE) * values[:, :-1]
    rank = torch.nn.functional.pad(drop.long().cumsum(-1), (1, 0))
    return torch.empty_like(rank).scatter_(-1, order, rank).argsort(dim=-1, stable=True)


def _characters(group: SymmetryGroup, names: Sequence[str], sites: Sequence[str]) -> list[int]:
    """Return, for each weight, the units whose flip changes its sign, as bits."""
    ones = {site: torch.ones(1, *group.shapes[site]) for site in sites}
    masks = [0] * sum(value.numel() for value in ones.values())
    bit = 0
    for name in names:
        size = group.families[name].size
        signs = torch.ones(size, size, dtype=torch.int64) - 2 * torch.eye(size, dtype=torch.int64)
        moved = GroupElement(group, {}, {}, {name: signs}, size).apply(ones)
        rows = [moved[site].reshape(len(moved[site]), -1).expand(size, -1) for site in sites]
        flipped = torch.cat(rows, dim=1) < 0
        for unit, weight in flipped.nonzero().tolist():
            masks[weight] |= 1 << (bit + unit)
        bit += size
    return masks


def _eliminate(
    masks: Sequence[int], flips: Sequence[bool | int], rank: int
) -> dict[int, tuple[int, bool]]:
    """Keep the equations that say something new, by their highest unit, up to a rank."""
    basis: dict[int, tuple[int, bool]] = {}
    for mask, flip in zip(masks, flips, strict=True):
        value = bool(flip)
        while mask:
            top = mask.bit_length() - 1
            if top not in basis:
                basis[top] = (mask, value)
                break
            mask ^= basis[top][0]
            value ^= basis[top][1]
        if len(basis) == rank:
            break
    return basis


def _next(group: SymmetryGroup, families: Mapping[str, Family]) -> tuple[str, list[Term]] | None:
    """Return a family that acts alone on some blocks, and the blocks; None if there is none."""
    blind = _blind(group)
    for name, family in families.items():
        alone = []
        for term in family.terms:
            if (term.site, term.block) in blind:
                continue
            acting = [
                other
                for other, there in site_terms(group, term.site)
                if other in families and there.block == term.block
            ]
            if acting == [name]:
                alone.append(term)
        if alone:
            return name, alone
    return None


def _blind(group: SymmetryGroup) -> set[tuple[str, tuple[int, ...]]]:
    """Return the blocks that tell no sign.

    Those that translations make zero; and those with a mean of zero over two units, where to
    flip is to exchange the two.
    """
    blind = null_blocks(group)
    for moved in group.translations.values():
        block = joint_block(group, moved.site, moved.block)
        if moved.along >= 0 and block.sizes[moved.along] == 2:
            space = group.spaces.get(block.spaces[moved.along])
            if space is not None and space.permutable:
                blind.add((moved.site, moved.block))
    return blind
