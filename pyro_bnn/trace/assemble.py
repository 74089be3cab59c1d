"""Join the segments of a run into its trace, and add groups to a finished trace.

Every change of ``trace.nc`` is made on a temporary copy beside it that is renamed when it is
whole: a kill leaves the trace as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import netCDF4
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.copying import copy_without
from pyro_bnn.trace.netcdf import NetcdfWriter, new_netcdf
from pyro_bnn.trace.reader import check_segments
from pyro_bnn.trace.segments import chain_numbers, segment_paths


def assemble(
    run: Path, attrs: Mapping[str, Any], extra: Mapping[str, xr.Dataset] | None = None
) -> Path:
    """Join the segments of a run, in their draws and chains, into its ``trace.nc``.

    One segment is in memory at a time (and at most one block of draws that waits for its chunk to
    fill), however many draws and chains there are. The file appears whole, by a rename.

    Parameters
    ----------
    run
        The run directory.
    attrs
        Attributes of the root; what is neither string nor number is stored as JSON.
    extra, optional
        Small groups to write beside those of the segments, such as ``observed_data``.

    Returns
    -------
    Path
        The trace.

    Raises
    ------
    UserError
        If the run has no segment, or one cannot be read.
    """
    run = Path(run)
    segments = segment_paths(run)
    if not segments:
        raise UserError(
            f"The run {run} has no whole segment: let it write one before assembling the trace."
        )
    check_segments(segments)
    counts = [chain_numbers(segment) for segment in segments]
    in_blocks = len(set(counts)) > 1
    chains = len({number for numbers in counts for number in numbers})
    # Of blocks of chains, each has all draws: those of one count.
    alike = [s for s, own in zip(segments, counts, strict=True) if own == counts[0]]
    draws = _count_draws(alike if in_blocks else segments)
    path = run / "trace.nc"
    with new_netcdf(path) as out:
        out.set_attrs(attrs)
        for segment in segments:
            for group, count in draws.items():
                block = _load(segment, group)
                if in_blocks:
                    out.place(group, block, chains, count)
                else:
                    out.append(group, block, count)
        for group, data in (extra or {}).items():
            out.put(group, data)
    return path


def add_groups(
    path: Path, groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any] | None = None
) -> None:
    """Add small groups to a finished trace; groups of the same names are replaced.

    Works on a copy beside the file, renamed when it is whole.

    Parameters
    ----------
    path
        The trace's file.
    groups
        Group name to dataset, in memory.
    attrs
        Attributes of the root to add or replace.

    Raises
    ------
    UserError
        If there is no trace at `path`, or it cannot be read.
    """
    with replacing(Path(path), sealed=True) as temporary:
        copy_without(Path(path), temporary, groups.keys())
        with NetcdfWriter(temporary, "a") as out:
            out.set_attrs(attrs or {})
            for group, data in groups.items():
                out.put(group, data)


class GroupAppender:
    """Streams new groups into a finished trace, block of draws by block of draws.

    A context manager. It works on a copy beside the file, which takes the file's name when the
    context is left without an exception; until then readers see the old trace, so the blocks may
    be computed from `open_trace` of the same path.

    Parameters
    ----------
    path
        The trace's file.
    group
        The group that `append` writes to unless told otherwise; replaced if it exists.
    also
        More groups that are written in the same pass.
    draws
        Draws expected in all, for the storage layout; by default those of ``posterior``.

    Raises
    ------
    UserError
        On entering, if there is no trace at `path` or it cannot be read.

    Examples
    --------
    >>> with GroupAppender(path, "canonical_posterior") as out:  # doctest: +SKIP
    ...     for start in range(0, draws, 100):
    ...         out.append(canonical(posterior.isel(draw=slice(start, start + 100))))
    """

    def __init__(
        self, path: Path, group: str, *, also: Collection[str] = (), draws: int | None = None
    ) -> None:
        self._path = Path(path)
        self._group = group
        self._names = (group, *also)
        self._draws = draws
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self._path, sealed=True))
            copy_without(self._path, temporary, self._names)
            if self._draws is None:
                self._draws = _count_draws([temporary]).get("posterior", 1)
            self._writer = stack.enter_context(NetcdfWriter(temporary, "a"))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def append(self, block: xr.Dataset, group: str | None = None) -> None:
        """Append a block of draws.

        Parameters
        ----------
        block
            Variables over ``draw``, alike in each block but for the number of draws. Variables
            without ``draw``, and the attributes, are taken from the first block.
        group
            One of the groups named at the start.

        Raises
        ------
        UserError
            If the block has other variables or sizes than the first.
        """
        name = self._group if group is None else group
        if name not in self._names:
            raise KeyError(f"group {name!r} was not announced: {self._names}")
        assert self._draws is not None
        self._writer.append(name, block.compute(), self._draws)

    def set_attrs(self, attrs: Mapping[str, Any], group: str | None = None) -> None:
        """Set attributes of a group that has been appended to: what is known at the end only.

        Parameters
        ----------
        attrs
            What is neither string nor number is stored as JSON.
        group
            One of the groups named at the start.
        """
        self._writer.set_attrs(attrs, self._group if group is None else group)


def _count_draws(files: list[Path]) -> dict[str, int]:
    """Sum the draws of each group that has any over the files."""
    counts: dict[str, int] = {}
    for path in files:
        with netCDF4.Dataset(path) as file:
            for name, group in file.groups.items():
                if "draw" in group.dimensions:
                    counts[name] = counts.get(name, 0) + group.dimensions["draw"].size
    return counts


def _load(path: Path, group: str) -> xr.Dataset:
    # Not as a tree: its reference cycles would keep the values until some later collection.
    with xr.open_dataset(path, group=group, engine="netcdf4", chunks=None, cache=False) as data:
        return data.compute()
