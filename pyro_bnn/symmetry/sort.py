"""The sorting representative: units in the order of a statistic of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.rows import comparable, rows

Rule = Literal["first", "max", "mean", "norm"]


def sort(
    group: SymmetryGroup, params: Mapping[str, Tensor], rule: Rule = "first"
) -> tuple[dict[str, Tensor], GroupElement]:
    """Sort the units of every space, in descending order, space after space.

    A unit is judged by its weights in the first site (in order of computation) whose other
    spaces are in order already: its incoming weights, in a feed-forward network. Ties are
    broken by the remaining weights, one after the other.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        ``(batch, *shape)`` for each site.
    rule : {"first", "max", "mean", "norm"}
        The first weight of a unit (the rule of Laurent et al., 2024, as released), or its
        largest weight, mean weight or Euclidean norm.

    Returns
    -------
    params : dict of str to Tensor
    element : GroupElement
        The permutations that were applied.

    Raises
    ------
    UserError
        If the rule is not one of the four.
    """
    if rule not in get_args(Rule):
        raise UserError(f"sort rule {rule!r} is not one of {', '.join(get_args(Rule))}")
    params = dict(params)
    batch = next(iter(params.values())).shape[0]
    total: dict[str, Tensor] = {}
    settled: set[str] = set()
    for name in _order(group):
        keys = sort_keys(group, params, name, settled, rule)
        order = lexicographic(keys)
        space = group.spaces[name]
        permutation = order.reshape(batch, space.over_size, space.size) if space.over else order
        if space.over:
            permutation = permutation % space.size
        step = GroupElement(group, {name: permutation}, {}, {}, batch)
        params = step.apply(params)
        total[name] = permutation
        settled.add(name)
    return params, GroupElement(group, total, {}, {}, batch)


def sort_keys(
    group: SymmetryGroup,
    params: Mapping[str, Tensor],
    name: str,
    settled: set[str],
    rule: Rule,
) -> Tensor:
    """Return the keys by which the units of a space are ordered, ``(batch, size, keys)``."""
    blocks, ordered = comparable(group, name, settled)
    table = [rows(group, params, where) for where in blocks]
    if group.spaces[name].over:
        size = group.spaces[name].over_size
        table = [t.reshape(t.shape[0] * size, -1, t.shape[-1]) for t in table]
    if not ordered:
        unordered = [statistic(t, r) for t in table for r in ("max", "mean", "norm")]
        return torch.stack(unordered, dim=-1)
    if rule == "first":
        return torch.cat(table, dim=-1)
    return torch.cat([statistic(table[0], rule)[..., None], *table], dim=-1)


def statistic(table: Tensor, rule: str) -> Tensor:
    """Summarise rows ``(batch, size, entries)`` to one number each, in float64."""
    table = table.double()
    if rule == "max":
        return table.amax(-1)
    return table.mean(-1) if rule == "mean" else table.norm(dim=-1)


def lexicographic(keys: Tensor) -> Tensor:
    """Return the order that sorts rows in descending order, first key first.

    Parameters
    ----------
    keys : Tensor
        ``(batch, size, keys)``.

    Returns
    -------
    Tensor
        ``(batch, size)`` of int64.
    """
    first, order = keys[..., 0].sort(dim=-1, descending=True, stable=True)
    tied = (first[..., 1:] == first[..., :-1]).any(-1)
    for draw in tied.nonzero().flatten().tolist():
        columns = -keys[draw].detach().cpu().double().numpy()
        order[draw] = torch.from_numpy(np.lexsort(columns.T[::-1])).to(order)
    return order


def _order(group: SymmetryGroup) -> list[str]:
    """Return the permutable spaces, a fibred one after the space below it."""
    names = list(group.permutable)
    return sorted(names, key=lambda name: bool(group.spaces[name].over))


def margin(group: SymmetryGroup, params: Mapping[str, Tensor], rule: Rule = "first") -> Tensor:
    """Return how far sorted draws are from a change of order, ``(batch,)``.

    The smallest difference between the keys of neighbouring units, over the deviation of the
    keys of all units of that space.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor
        Sorted draws.
    rule : {"first", "max", "mean", "norm"}
    """
    batch = next(iter(params.values())).shape[0]
    least = torch.full((batch,), torch.inf, dtype=torch.float64)
    for name in _order(group):
        settled = set(group.permutable) - {name}
        keys = sort_keys(group, params, name, settled, rule)[..., 0].double()
        if keys.shape[-1] > 1:
            gap = (keys[..., :-1] - keys[..., 1:]).abs().amin(-1)
            relative = (gap / keys.std(-1).clamp_min(1e-300)).reshape(batch, -1).amin(-1)
            least = torch.minimum(least, relative)
    return least
