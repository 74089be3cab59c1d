"""What the trace says of the symmetry group and of the group elements of its draws."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import blocks


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
    notes
        Whatever else the group's attributes say, as name and value.
    """

    table: str
    log_order: float
    distinct: dict[str, int]
    sizes: dict[str, int]
    samples: int
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
    attrs = {str(name): _decoded(value) for name, value in group.attrs.items()}
    table = attrs.pop("table", "")
    log_order = attrs.pop("log_order", math.nan)
    distinct: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, array in group.data_vars.items():
        if array.dtype.kind not in "iu" or array.ndim != 3:
            continue
        sizes[str(name)] = math.prod(array.shape[2:])
        distinct[str(name)] = _distinct(array)
    return Orbits(
        table=str(table),
        log_order=float(log_order) if isinstance(log_order, int | float) else math.nan,
        distinct=distinct,
        sizes=sizes,
        samples=group.sizes.get("chain", 0) * group.sizes.get("draw", 0),
        notes={
            name: str(value)
            for name, value in attrs.items()
            if isinstance(value, str | int | float)
        },
    )


def _distinct(array: xr.DataArray) -> int:
    """Count distinct rows by a 64-bit random projection, eight bytes a draw."""
    size = math.prod(array.transpose("chain", "draw", ...).shape[2:])
    weights = np.random.default_rng(0).integers(0, 2**63, size=size, dtype=np.uint64)
    seen: list[NDArray[np.uint64]] = []
    for block in blocks(array):
        keys = block.values.astype(np.uint64) @ weights
        seen.append(np.unique(keys))
    return len(np.unique(np.concatenate(seen))) if seen else 0


def _decoded(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
