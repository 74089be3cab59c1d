"""Random projections of all scalars of a space: directions that no single weight shows."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import blocks

PROJECTIONS = 8

_CHUNK = 2**16

Array = NDArray[np.float64]


def random_projections(group: xr.Dataset, count: int = PROJECTIONS, seed: int = 0) -> Array:
    """Project the draws on random directions, with plus or minus one for each scalar.

    Parameters
    ----------
    group
        Variables with the dimensions ``chain`` and ``draw``.
    count
        Number of directions.
    seed
        Seed of the signs.

    Returns
    -------
    numpy.ndarray
        Shape ``(projection, chain, draw)``, over the square root of the number of scalars.
    """
    rng = np.random.default_rng(seed)
    result = np.zeros((group.sizes["chain"], group.sizes["draw"], count))
    total = 0
    for array in group.data_vars.values():
        size = math.prod(array.transpose("chain", "draw", ...).shape[2:])
        total += size
        signs = rng.integers(2, size=(size, count), dtype=np.int8) * 2 - 1
        for block in blocks(array):
            for start in range(0, size, _CHUNK):
                part = slice(start, start + _CHUNK)
                values = block.values[..., part].astype(np.float64)
                result[block.chains, block.draws] += values @ signs[part].astype(np.float64)
    moved: Array = np.moveaxis(result, -1, 0) / math.sqrt(max(1, total))
    return moved
