"""Which draws of a trace to compare, and their weights in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import blocks, gather, random_scalars
from pyro_bnn.diagnostics.rank_statistics import MIN_DRAWS

_SCALARS = 16
_CHAINS = 16


@dataclass(frozen=True)
class Draws:
    """Positions of chosen draws: `chain` and `draw`, each of shape ``(sample,)``."""

    chain: NDArray[np.int64]
    draw: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.chain)

    def spaced(self, count: int) -> Draws:
        """Return at most `count` of them, evenly spaced within and across chains."""
        if count >= len(self):
            return self
        places = ((np.arange(count) + 0.5) * len(self) / count).astype(np.int64)
        return Draws(self.chain[places], self.draw[places])


def all_draws(chains: int, draws: int) -> Draws:
    """Return every draw, chain by chain."""
    chain, draw = np.divmod(np.arange(chains * draws), draws)
    return Draws(chain, draw)


def finite_draws(group: xr.Dataset) -> NDArray[np.bool_]:
    """Say which draws hold no NaN and no infinity.

    Parameters
    ----------
    group
        Variables with the dimensions ``chain`` and ``draw``.

    Returns
    -------
    numpy.ndarray
        Shape ``(chain, draw)``.
    """
    finite = np.ones((group.sizes["chain"], group.sizes["draw"]), dtype=bool)
    for array in group.data_vars.values():
        for block in blocks(array):
            finite[block.chains, block.draws] &= np.isfinite(block.values).all(axis=-1)
    return finite


def usable_draws(group: xr.Dataset) -> Draws:
    """Return the finite draws, chain by chain."""
    chain, draw = np.nonzero(finite_draws(group))
    return Draws(chain, draw)


def effective_draws(group: xr.Dataset, seed: int = 0) -> int:
    """Count the draws that autocorrelation within the chains leaves.

    The bulk effective sample size of each chain by itself, summed over chains, for some random
    scalars; their median, without those that are constant. Unlike that of all chains together, it
    does not fall when the chains disagree: disagreement is for the comparison to find.

    Parameters
    ----------
    group
        Variables with the dimensions ``chain`` and ``draw``.
    seed
        Seed of the choice of scalars and, of more than sixteen, of chains.

    Returns
    -------
    int
        All draws where a chain has fewer than four, one a chain where nothing moves; two at least.
    """
    chains, draws = group.sizes["chain"], group.sizes["draw"]
    if draws < MIN_DRAWS:
        return chains * draws
    rng = np.random.default_rng(seed)
    few = group.isel(chain=np.sort(rng.permutation(chains)[:_CHAINS]))
    sums = []
    for _, _, values in gather(few, random_scalars(few, _SCALARS, seed)):
        numbers = values.reshape(-1, 1, draws).astype(np.float64)
        moving = np.isfinite(numbers).all(axis=(1, 2)) & (np.ptp(numbers, axis=2)[:, 0] > 0)
        ess = np.full(len(numbers), np.nan)
        if moving.any():
            ess[moving] = array_stats.ess(numbers[moving], method="bulk")  # type: ignore[no-untyped-call]
        worth = np.where(np.isnan(ess), 1.0, np.minimum(ess, draws)).reshape(len(values), -1)
        # What never moves, such as the density of a row that is certain, says nothing of the rest.
        sums += worth.mean(axis=1)[moving.reshape(worth.shape).any(axis=1)].tolist()
    return max(2, int(chains * float(np.median(sums)))) if sums else max(2, chains)


def chosen(array: xr.DataArray, draws: Draws, block_bytes: int) -> Iterator[NDArray[np.floating]]:
    """Load chosen draws of a variable, so many of its scalars at a time as fit.

    Parameters
    ----------
    array
        A variable with the dimensions ``chain`` and ``draw``.
    draws
        Which.
    block_bytes
        What a block may weigh in float64; it holds one index of the first other dimension at
        least.

    Yields
    ------
    numpy.ndarray
        Shape ``(sample, scalar)``.
    """
    array = array.transpose("chain", "draw", ...)
    inner = array.dims[2:]
    if not inner:
        yield _picked(array, draws).to_numpy().reshape(-1, 1)
        return
    row = 8 * len(draws) * math.prod(array.shape[3:])
    step = max(1, block_bytes // max(1, row))
    for start in range(0, array.sizes[inner[0]], step):
        part = _picked(array.isel({inner[0]: slice(start, start + step)}), draws)
        yield part.transpose("sample_", ...).to_numpy().reshape(len(draws), -1)


def _picked(array: xr.DataArray, draws: Draws) -> xr.DataArray:
    """Choose draws, along a dimension ``sample_``."""
    if array.sizes["draw"] == 1:
        # Chains alone: a lazy array reads those, and builds no index as large as the values.
        return array.isel(draw=0, chain=draws.chain).rename(chain="sample_")
    picks = {"chain": draws.chain, "draw": draws.draw}
    return array.isel({dim: xr.DataArray(at, dims="sample_") for dim, at in picks.items()})
