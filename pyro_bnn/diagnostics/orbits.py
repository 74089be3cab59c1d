"""What the trace says of the symmetry group and of the group elements of its draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import blocks
from pyro_bnn.diagnostics.exchangeability import permuted_spaces
from pyro_bnn.diagnostics.format import number

_NOTES = {
    "permutation": "Order of units",
    "scaling": "Scale of units",
    "sign": "Sign of units",
    "scale_dim": "Free scales",
    "left_open": "Symmetry left in the draws",
    "function_error": "Largest relative change of an output",
}


@dataclass(frozen=True)
class Orbits:
    """The symmetry group of a network as its trace records it.

    Attributes
    ----------
    table
        The group in words, one line a generator; empty if the trace has no table.
    log_order
        Natural logarithm of the number of discrete group elements; NaN if unknown.
    distinct
        Hidden space to the number of distinct permutations that its draws needed.
    sizes
        Hidden space to its number of units.
    samples
        Draws of all chains together.
    mass_before, mass_after
        Median over draws of the sum of squared weights, as sampled and canonical; NaN if unknown.
    notes
        How the representative was chosen, as name and value.
    """

    table: str
    log_order: float
    distinct: dict[str, int]
    sizes: dict[str, int]
    samples: int
    mass_before: float
    mass_after: float
    notes: dict[str, str]


def orbits(trace: xr.DataTree) -> Orbits | None:
    """Read the group ``symmetry``.

    Parameters
    ----------
    trace
        A trace; its group ``symmetry`` holds a permutation of each hidden space a draw.

    Returns
    -------
    Orbits or None
        None if the trace has no such group.
    """
    if "symmetry" not in trace.children:
        return None
    group = trace["symmetry"].to_dataset()
    attrs = group.attrs
    distinct: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, variable in permuted_spaces(trace).items():
        sizes[name] = variable.shape[-1]
        distinct[name] = _distinct(xr.DataArray(variable))
    return Orbits(
        table=str(attrs.get("table", "")),
        log_order=_number(attrs, "log_order"),
        distinct=distinct,
        sizes=sizes,
        samples=group.sizes.get("chain", 0) * group.sizes.get("draw", 0),
        mass_before=_median(group, "mass_before"),
        mass_after=_median(group, "mass_after"),
        notes={label: _note(attrs[key]) for key, label in _labels(attrs).items() if key in attrs},
    )


def _labels(attrs: Mapping[Any, Any]) -> dict[str, str]:
    """Say which attributes are notes, and how they are called.

    Units that are matched are sorted too, but only to begin with; weight matching starts from the
    order that they have.
    """
    permutation = str(attrs.get("permutation", "sort"))
    if permutation in ("none", "weight-matching"):
        return _NOTES
    label = "Sorted by" if permutation == "sort" else "Sorted before they are matched by"
    return {"permutation": _NOTES["permutation"], "sort_rule": label} | _NOTES


def _number(attrs: Mapping[Any, Any], name: str) -> float:
    try:
        return float(attrs.get(name, math.nan))
    except (TypeError, ValueError):
        return math.nan


def _note(value: Any) -> str:
    """Write a number in few digits, anything else as it is."""
    try:
        return number(float(value))
    except (TypeError, ValueError):
        return str(value)


def _median(group: xr.Dataset, name: str) -> float:
    values = group[name].to_numpy() if name in group else np.empty(0)
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else math.nan


def _distinct(array: xr.DataArray) -> int:
    """Count distinct rows by a 64-bit random projection, eight bytes a draw."""
    size = math.prod(array.transpose("chain", "draw", ...).shape[2:])
    weights = np.random.default_rng(0).integers(0, 2**63, size=size, dtype=np.uint64)
    seen: list[NDArray[np.uint64]] = []
    for block in blocks(array):
        keys = block.values.astype(np.uint64) @ weights
        seen.append(np.unique(keys))
    return len(np.unique(np.concatenate(seen))) if seen else 0
