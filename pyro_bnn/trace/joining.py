"""Join runs of the same model, each of some of the chains, into the segments of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace.netcdf import BLOCK_BYTES, new_netcdf
from pyro_bnn.trace.reader import open_trace
from pyro_bnn.trace.segments import discard_segments

__all__ = ["join_chains"]


def join_chains(parts: Sequence[Path], run: Path, segment_draws: int) -> None:
    """Write the draws of several run directories as segments of another, chains side by side.

    A block of draws of all chains is in memory at a time: one draw of them, or 8 MiB.

    Parameters
    ----------
    parts
        Directories with segments; their chains follow one another.
    run
        The directory that gets the segments; earlier ones are replaced.
    segment_draws
        Draws of a segment.

    Raises
    ------
    UserError
        If the parts have different numbers of draws.
    """
    trees = [open_trace(part, chunks=None) for part in parts]
    counts = {tree["posterior"].sizes["draw"] for tree in trees}
    if len(counts) > 1:
        raise UserError(f"the parts of {run} have {sorted(counts)} draws: resume the run")
    draws = counts.pop()
    groups = {name: [tree[name].to_dataset() for tree in trees] for name in trees[0].children}
    for index, start in enumerate(range(0, draws, segment_draws)):
        stop = min(start + segment_draws, draws)
        path = Path(run) / "segments" / f"{index:06d}.nc"
        with new_netcdf(path) as out:
            for name, datasets in groups.items():
                row = sum(data.nbytes for data in datasets) // draws
                step = max(1, BLOCK_BYTES // max(1, row))
                for first in range(start, stop, step):
                    last = min(first + step, stop)
                    out.append(name, _side_by_side(datasets, slice(first, last)), stop - start)
    discard_segments(run, -(-draws // segment_draws))
    for tree in trees:
        tree.close()


def _side_by_side(datasets: Sequence[xr.Dataset], draws: slice) -> xr.Dataset:
    loaded = [data.isel(draw=draws).load() for data in datasets]
    joined = xr.concat(loaded, "chain", join="override", combine_attrs="override")
    return joined.assign_coords(chain=np.arange(joined.sizes["chain"]))
