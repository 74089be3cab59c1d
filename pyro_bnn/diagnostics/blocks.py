"""Walk through the draws of a trace in blocks that fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

BLOCK_BYTES = 8 * 2**20
GATHER_BYTES = 24 * 2**20


@dataclass(frozen=True)
class Block:
    """Some draws of one variable: `values` has the shape ``(chain, draw, size)``."""

    chains: slice
    draws: slice
    values: NDArray[Any]


def draw_slices(array: xr.DataArray, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Cut the draws into ranges of at most `block_bytes`, along dask's chunks where it has them.

    Parameters
    ----------
    array
        A variable with the dimensions ``chain`` and ``draw``.
    block_bytes
        What all chains of one range may weigh; a range holds one draw at least.

    Yields
    ------
    slice
        Consecutive ranges of draws.
    """
    draws = array.sizes["draw"]
    step = max(1, block_bytes * draws // max(1, array.nbytes))
    start = stop = 0
    for size in array.chunksizes.get("draw", (draws,)):
        if start < stop and stop + size - start > step:
            yield slice(start, stop)
            start = stop
        stop += size
        while stop - start > step:
            yield slice(start, start + step)
            start += step
    if start < stop:
        yield slice(start, stop)


def blocks(array: xr.DataArray, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Load a variable block by block.

    Parameters
    ----------
    array
        A variable with the dimensions ``chain`` and ``draw`` and any others.
    block_bytes
        What one block may weigh. Where one draw of all chains is heavier, so many chains come at
        a time as fit, one at least.

    Yields
    ------
    Block
        Values with all other dimensions flattened in the order in which they are stored.
    """
    array = array.transpose("chain", "draw", ...)
    chains = array.sizes["chain"]
    inner = math.prod(array.shape[2:])
    together = min(chains, max(1, block_bytes // max(1, inner * array.dtype.itemsize)))
    for draws in draw_slices(array, block_bytes):
        for start in range(0, chains, together):
            some = slice(start, min(start + together, chains))
            values = array.isel(chain=some, draw=draws).to_numpy()
            yield Block(some, draws, values.reshape(*values.shape[:2], inner))


def gather(
    group: xr.Dataset,
    picks: Mapping[str, NDArray[np.int64]],
    gather_bytes: int = GATHER_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[Any]]]:
    """Load all draws of chosen scalars, so many scalars at a time as fit.

    Parameters
    ----------
    group
        Variables with the dimensions ``chain`` and ``draw``.
    picks
        Variable to the positions wanted in its flattened other dimensions.
    gather_bytes
        What the scalars yielded at a time may weigh.
    block_bytes
        What a block of draws read from the variable may weigh.

    Yields
    ------
    name : str
        The variable.
    index : numpy.ndarray
        Positions of shape ``(scalar,)``.
    values : numpy.ndarray
        Draws of shape ``(scalar, chain, draw)``.
    """
    for name, index in picks.items():
        array = group[name]
        chains, draws = array.sizes["chain"], array.sizes["draw"]
        step = max(1, gather_bytes // max(1, chains * draws * array.dtype.itemsize))
        for start in range(0, len(index), step):
            part = index[start : start + step]
            values = np.empty((len(part), chains, draws), dtype=array.dtype)
            for block in blocks(array, block_bytes):
                chosen = block.values[:, :, part]
                values[:, block.chains, block.draws] = np.moveaxis(chosen, -1, 0)
            yield name, part, values


def random_scalars(group: xr.Dataset, max_scalars: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Pick scalars of a group: all of them, or a random subset.

    Parameters
    ----------
    group
        Variables with the dimensions ``chain`` and ``draw``.
    max_scalars
        How many at most.
    seed
        Seed of the subset.

    Returns
    -------
    dict
        Variable to positions in its flattened other dimensions, as `gather` takes them.
    """
    arrays = {str(name): array.transpose("chain", "draw", ...) for name, array in group.items()}
    sizes = {name: math.prod(array.shape[2:]) for name, array in arrays.items()}
    total = sum(sizes.values())
    wanted = np.arange(total)
    if total > max_scalars:
        wanted = np.sort(np.random.default_rng(seed).choice(total, size=max_scalars, replace=False))
    picks = {}
    start = 0
    for name, size in sizes.items():
        stop = start + size
        inside = wanted[(wanted >= start) & (wanted < stop)] - start
        if len(inside):
            picks[name] = inside
        start = stop
    return picks
