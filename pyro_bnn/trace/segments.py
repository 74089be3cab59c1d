"""Segments: what a run has drawn so far, one whole NetCDF file after another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import netCDF4
from torch import Tensor

from pyro_bnn.trace.atomic import TEMPORARY_SUFFIX
from pyro_bnn.trace.netcdf import new_netcdf
from pyro_bnn.trace.schema import site_dataset

_SEGMENT = re.compile(r"\d{6,}\.nc")


class SegmentWriter:
    """Writes segments of a run: ``segments/000000.nc``, ``segments/000001.nc``, ...

    A file has its name only when it is whole and on the disk: it is written under a temporary
    name in the same directory, sealed with a checksum, flushed, and renamed. A kill at any moment
    leaves whole segments.

    Parameters
    ----------
    directory
        The run directory.
    dims
        Site name to the names of its axes (see `site_dataset`).
    sync
        Flush each segment to the disk before it gets its name.
    """

    def __init__(
        self,
        directory: Path,
        dims: Mapping[str, Sequence[str]] | None = None,
        sync: bool = True,
    ) -> None:
        self._run = Path(directory)
        self._dims = dims
        self._sync = sync

    def write(
        self,
        index: int,
        groups: Mapping[str, Mapping[str, Tensor]],
        draw_start: int,
        chains: Sequence[int] | None = None,
    ) -> Path:
        """Write one segment.

        Parameters
        ----------
        index
            Number of the segment; a segment of that number is replaced.
        groups
            Group name (``posterior``, ``sample_stats``, ...) to its variables, each of shape
            ``(chain, draw, *shape)``.
        draw_start
            Number of the first draw of the segment.
        chains
            Numbers of its chains, where the segment holds some of them; all by default.

        Returns
        -------
        Path
            The segment's file.
        """
        path = self._run / "segments" / f"{index:06d}.nc"
        with new_netcdf(path, sync=self._sync) as out:
            for group, draws in groups.items():
                data = site_dataset(draws, self._dims, draw_start)
                out.put(group, data if chains is None else data.assign_coords(chain=list(chains)))
        return path


def segment_paths(run: Path) -> list[Path]:
    """List the whole segments of a run in order.

    Parameters
    ----------
    run
        The run directory.

    Returns
    -------
    list of Path
        The segments; files under temporary names are not among them.
    """
    found = (Path(run) / "segments").glob("*.nc")
    return sorted((p for p in found if _SEGMENT.fullmatch(p.name)), key=lambda p: int(p.stem))


def chain_numbers(segment: Path) -> tuple[int, ...]:
    """Return the numbers of the chains that a segment holds.

    Parameters
    ----------
    segment
        The segment's file.

    Returns
    -------
    tuple of int
        Empty if the segment has no group ``posterior``.
    """
    with netCDF4.Dataset(segment) as file:
        group = file.groups.get("posterior")
        return () if group is None else tuple(group.variables["chain"][...].tolist())


def discard_segments(run: Path, start: int) -> None:
    """Remove the segments from number `start` on, and the leftovers of killed writers.

    Parameters
    ----------
    run
        The run directory.
    start
        The first number to go.
    """
    for path in reversed(segment_paths(run)):
        if int(path.stem) >= start:
            path.unlink()
    for path in (Path(run) / "segments").glob(f".*{TEMPORARY_SUFFIX}"):
        path.unlink()
