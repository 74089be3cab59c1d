"""Three more R-hats of a space: within chains, over members, and of random projections."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather, random_scalars
from pyro_bnn.diagnostics.chainwise import chainwise_rhat
from pyro_bnn.diagnostics.convergence import MAX_SCALARS, SUBSET_SEED, Space, group_of
from pyro_bnn.diagnostics.projections import random_projections
from pyro_bnn.diagnostics.rank_statistics import MIN_DRAWS, rank_statistics

FINER_SCALARS = 200

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FinerConvergence:
    """R-hats of a random subset of the scalars of one space.

    Attributes
    ----------
    space
        ``"weight"``, ``"canonical"``, ``"function"`` or ``"null"``.
    scalars
        Size of the subset.
    chainwise
        R-hat of the four quarters of each chain, averaged over chains, shape ``(scalar,)``.
    nested
        Nested R-hat over members (Margossian et al. 2024), shape ``(scalar,)``; empty without at
        least two members of equally many chains.
    members
        Number of members; 0 if the trace names none.
    projected
        R-hat of random projections of the whole space, shape ``(projection,)``; empty where the
        space is small enough for each scalar to be looked at.
    """

    space: Space
    scalars: int
    chainwise: Array
    nested: Array
    members: int
    projected: Array


def finer_convergence(
    trace: xr.DataTree,
    space: Space,
    max_scalars: int = FINER_SCALARS,
    project_above: int = MAX_SCALARS,
    seed: int = SUBSET_SEED,
) -> FinerConvergence | None:
    """Compute the R-hats that `convergence` leaves out, on fewer scalars.

    Parameters
    ----------
    trace
        A trace. Its attribute ``members`` is a JSON list of one member id a chain, where chains
        start in groups from the members of an ensemble.
    space
        Which space.
    max_scalars
        Size of the random subset.
    project_above
        Spaces of more scalars are projected, if all their draws are finite.
    seed
        Of the subset and of the projections.

    Returns
    -------
    FinerConvergence or None
        None if the trace lacks the group.
    """
    group = group_of(trace, space)
    if group is None:
        return None
    members = member_numbers(trace, group.sizes["chain"])
    labels = np.unique(members)
    chainwise, nested = [], []
    for _, _, values in gather(group, random_scalars(group, max_scalars, seed)):
        numbers = values.astype(np.float64)
        usable = np.isfinite(numbers).all(axis=(1, 2)) & (np.ptp(numbers, axis=(1, 2)) > 0)
        chainwise.append(_with_gaps(usable, chainwise_rhat(numbers[usable])))
        nested.append(_with_gaps(usable, _nested(numbers[usable], members)))
    draws = max(1, group.sizes["chain"] * group.sizes["draw"])
    every = sum(array.size // draws for array in group.data_vars.values())
    projected = np.empty(0)
    if every > project_above:
        lines = random_projections(group, seed=seed)
        if np.isfinite(lines).all() and np.ptp(lines, axis=(1, 2)).all():
            projected = rank_statistics(lines)[0]
    joined = np.concatenate(nested) if nested else np.empty(0)
    return FinerConvergence(
        space=space,
        scalars=sum(map(len, chainwise)),
        chainwise=np.concatenate(chainwise) if chainwise else np.empty(0),
        nested=joined if np.isfinite(joined).any() else np.empty(0),
        members=len(labels),
        projected=projected,
    )


def member_numbers(trace: xr.DataTree, chains: int) -> NDArray[np.int64]:
    """Count the members from 0 and say which each chain belongs to.

    Parameters
    ----------
    trace
        Its attribute ``members`` is a JSON list.
    chains
        How many ids the list must have.

    Returns
    -------
    numpy.ndarray
        Shape ``(chain,)``; empty if the attribute is missing or of another length.
    """
    try:
        stated = json.loads(str(trace.attrs.get("members", "[]")))
    except json.JSONDecodeError:
        return np.empty(0, np.int64)
    if not isinstance(stated, list) or len(stated) != chains:
        return np.empty(0, np.int64)
    _, numbers = np.unique([str(one) for one in stated], return_inverse=True)
    return numbers.astype(np.int64)


def _nested(values: Array, members: NDArray[np.int64]) -> Array:
    counts = np.bincount(members) if len(members) else np.empty(0)
    defined = len(counts) > 1 and counts.min() == counts.max() and values.shape[2] >= MIN_DRAWS
    if not defined or not len(values):
        return np.full(len(values), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat_nested(values, superchain_ids=members)  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.float64)


def _with_gaps(usable: NDArray[np.bool_], found: Array) -> Array:
    result = np.full(len(usable), np.nan)
    result[usable] = found
    return result
