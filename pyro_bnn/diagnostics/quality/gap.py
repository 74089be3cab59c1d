"""What two samples are apart by, summed over weights: tasks of one part of a site each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from pyro_bnn.diagnostics.draws import Draws, chosen
from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.diagnostics.quality.wasserstein import SlicedWasserstein
from pyro_bnn.tasks import one_thread

TASK_WEIGHTS = 2**17
"""Weights of one task: a matter of the network alone, so that sums are those of every scheduler."""

_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class Gap:
    """Distances between all pairs of draws and their projections, due to some of the weights."""

    distances: Distances
    projections: SlicedWasserstein

    def __add__(self, other: Gap) -> Gap:
        """Return what is due to the weights of both."""
        return Gap(self.distances + other.distances, self.projections + other.projections)


@dataclass(frozen=True)
class Piece:
    """Part of a site of both samples, which lazy arrays read when it is measured."""

    number: int
    site: str
    here: xr.DataArray
    there: xr.DataArray


def pieces(here: xr.Dataset, there: xr.Dataset, sites: Sequence[str]) -> Iterator[Piece]:
    """Cut sites along their first axis into parts of at most 131,072 weights, if they have that.

    Parameters
    ----------
    here, there
        Variables ``(chain, draw, *shape)`` of one model.
    sites
        Names of variables, in the order in which they are to be summed.
    """
    number = 0
    for site in sites:
        array = here[site].transpose("chain", "draw", ...)
        other = there[site].transpose(*_inner_as(array, there[site]))
        array, other = (one.drop_vars(list(one.coords)) for one in (array, other))
        step = max(1, TASK_WEIGHTS // max(1, math.prod(array.shape[3:])))
        for start in range(0, array.shape[2] if array.ndim > 2 else 1, step):
            part = (..., slice(start, start + step), *[slice(None)] * (array.ndim - 3))
            here_part, there_part = (one if one.ndim == 2 else one[part] for one in (array, other))
            yield Piece(number, site, here_part, there_part)
            number += 1


@dataclass(frozen=True)
class Measure:
    """Measures a piece between chosen draws, in blocks of 32 MiB.

    Attributes
    ----------
    picks
        Draws of either sample.
    seed
        Of the directions of projection, with the number of the piece.
    device
        Where to compute.
    """

    picks: tuple[Draws, Draws]
    seed: tuple[int, ...]
    device: torch.device

    def __call__(self, piece: Piece) -> Gap:
        """Return the sum over the weights of a piece."""
        state = np.random.SeedSequence((*self.seed, piece.number)).generate_state(1, np.uint64)
        generator = torch.Generator(self.device).manual_seed(int(state[0] >> np.uint64(1)))
        gap: Gap | None = None
        blocks = (
            chosen(array, draws, _BLOCK_BYTES)
            for array, draws in zip((piece.here, piece.there), self.picks, strict=True)
        )
        with one_thread():
            for values in zip(*blocks, strict=True):
                # A copy: what torch allocates is aligned, and products of it round alike.
                x, y = (torch.tensor(v, dtype=torch.float64, device=self.device) for v in values)
                found = Gap(Distances.of(x, y), SlicedWasserstein.of(x, y, generator=generator))
                gap = found if gap is None else gap + found
        assert gap is not None
        return gap


def _inner_as(like: xr.DataArray, other: xr.DataArray) -> tuple[str, ...]:
    """Order the dimensions of `other` as those of `like`, where they have the same names."""
    inner = [str(dim) for dim in like.dims if dim not in ("chain", "draw")]
    theirs = [str(dim) for dim in other.dims if dim not in ("chain", "draw")]
    return ("chain", "draw", *(inner if set(inner) == set(theirs) else theirs))
