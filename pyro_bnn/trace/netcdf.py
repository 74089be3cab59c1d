"""Groups of a NetCDF-4 file, written whole or block by block along the draws."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.errors import UserError
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.schema import encode_attrs

BLOCK_BYTES = 8 * 2**20
"""What a block of draws of one group, or a slab of one variable over all draws, may weigh."""

LARGEST_CHUNK = 4 * 2**20
SMALLEST_CHUNK = 64 * 2**10
CHUNK_CACHE_BYTES = 2 * 2**20


@contextmanager
def small_chunk_cache() -> Iterator[None]:
    """Open files with a small cache for each variable.

    Chunks are read and written whole, so the library's 64 MiB a variable would only add up.
    """
    default = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(CHUNK_CACHE_BYTES)
    try:
        yield
    finally:
        netCDF4.set_chunk_cache(*default)


@contextmanager
def new_netcdf(path: Path, *, sync: bool = True) -> Iterator[NetcdfWriter]:
    """Write a NetCDF file that appears whole, with its checksum, or not at all.

    Parameters
    ----------
    path
        The file.
    sync
        Flush it to the disk before it gets its name.
    """
    with replacing(path, sync=sync, sealed=True) as temporary, NetcdfWriter(temporary) as out:
        yield out


class NetcdfWriter:
    """One NetCDF-4 file under construction.

    Parameters
    ----------
    path
        The file.
    mode
        ``"w"`` starts the file anew, ``"a"`` adds groups to it.
    """

    def __init__(self, path: Path, mode: str = "w") -> None:
        self._file = netCDF4.Dataset(path, mode, format="NETCDF4")  # type: ignore[arg-type]
        self._file.set_auto_maskandscale(False)
        self._streams: dict[str, _DrawStream] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for stream in self._streams.values():
                    stream.flush()
        finally:
            self._file.close()

    def set_attrs(self, attrs: Mapping[str, Any], group: str | None = None) -> None:
        """Write attributes of the root, or of a group that is there."""
        target = self._file if group is None else self._file.groups[group]
        target.setncatts(encode_attrs(attrs))

    def put(self, group: str, data: xr.Dataset) -> None:
        """Write a whole group that is in memory."""
        variables, attrs = _encoded(data)
        target = self._file.createGroup(group)
        _define(target, variables, attrs, layout=None)
        for name, variable in variables.items():
            target.variables[name][...] = variable.values

    def append(self, group: str, block: xr.Dataset, draws: int) -> None:
        """Append a block of draws to a group, which the first block defines.

        Parameters
        ----------
        group
            Name of the group.
        block
            Variables over ``draw``; those without it are written once, from the first block.
        draws
            How many draws are expected in all (a hint for the storage layout).

        Raises
        ------
        UserError
            If the block has other variables or sizes than the first.
        """
        if group not in self._streams:
            target = self._file.createGroup(group)
            self._streams[group] = _DrawStream(target, block, draws)
        self._streams[group].append(block)

    def place(self, group: str, block: xr.Dataset, chains: int, draws: int) -> None:
        """Write a block of chains and draws to where its coordinates say, in a group of them all.

        Parameters
        ----------
        group
            Name of the group, which the first block defines.
        block
            Variables over ``chain`` and ``draw``, with integer coordinates of both.
        chains, draws
            How many there are in all.
        """
        variables, attrs = _encoded(block)
        if group not in self._file.groups:
            _, layout = chunk_layout(xr.Dataset(dict(variables)), draws)
            whole = {"chain": chains, "draw": draws}
            sized = {name: _resized(variable, whole) for name, variable in variables.items()}
            target = self._file.createGroup(group)
            _define(target, sized, attrs, layout, unlimited=())
            for name, size in whole.items():
                target.variables[name][...] = np.arange(size)
        target = self._file.groups[group]
        first = int(block["draw"][0])
        span = slice(first, first + block.sizes["draw"])
        for rows, chain in _runs(block["chain"].to_numpy()):
            where = {"chain": chain, "draw": span}
            for name, variable in variables.items():
                if name in where or not {"chain", "draw"} <= set(variable.dims):
                    continue
                index = tuple(where.get(str(dim), slice(None)) for dim in variable.dims)
                target.variables[name][index] = variable.isel(chain=rows).values


def chunk_layout(data: xr.Dataset, draws: int) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Choose the storage chunks of a group's variables.

    A chunk is the intersection of the two ways in which a trace is read, a block of draws of all
    variables and a slab of one variable over all draws, each of `BLOCK_BYTES`; so neither reads
    much more than it asks for. Blocks of draws are the same for all variables of the group.

    Parameters
    ----------
    data
        Any block of the group, for its variables, dimensions and types.
    draws
        Number of draws in all.

    Returns
    -------
    rows : int
        Draws in a block.
    chunks : dict
        Variable name to chunk shape, for the variables over ``draw``.
    """
    draws = max(draws, 1)
    streamed = {name: v for name, v in data.variables.items() if "draw" in v.dims}
    row = sum(v.dtype.itemsize * math.prod(_row_shape(v)) for v in streamed.values())
    rows = _even(draws, max(1, BLOCK_BYTES // max(1, row)))
    chunk_bytes = min(max(SMALLEST_CHUNK, BLOCK_BYTES * rows // draws), LARGEST_CHUNK)
    return rows, {
        str(name): _split(v, rows, chunk_bytes // (v.dtype.itemsize * rows))
        for name, v in streamed.items()
    }


class _DrawStream:
    """Blocks of draws on their way into one group, written in whole rows of chunks."""

    def __init__(self, target: netCDF4.Group, block: xr.Dataset, draws: int) -> None:
        variables, attrs = _encoded(block)
        self._rows, layout = chunk_layout(xr.Dataset(dict(variables)), draws)
        self._target = target
        self._sizes = {dim: size for dim, size in block.sizes.items() if dim != "draw"}
        self._names = set(block.variables)
        self._written = 0
        self._waiting: list[xr.Dataset] = []
        _define(target, variables, attrs, layout)
        for name, variable in variables.items():
            if "draw" not in variable.dims:
                target.variables[name][...] = variable.values

    def append(self, block: xr.Dataset) -> None:
        sizes = {dim: size for dim, size in block.sizes.items() if dim != "draw"}
        if sizes != self._sizes or set(block.variables) != self._names:
            raise UserError(
                f"A block of group '{self._target.name}' has the variables "
                f"{sorted(map(str, block.variables))} with sizes {sizes}, the first block had "
                f"{sorted(map(str, self._names))} with sizes {self._sizes}: make them alike."
            )
        self._waiting.append(block)
        have = sum(waiting.sizes["draw"] for waiting in self._waiting)
        if have >= self._rows:
            self._write(have - have % self._rows)

    def flush(self) -> None:
        self._write(sum(waiting.sizes["draw"] for waiting in self._waiting))

    def _write(self, count: int) -> None:
        """Write the first `count` waiting draws and keep the rest."""
        done = 0
        while done < count:
            take = min(self._rows, count - done)
            self._write_rows(self._take(take), take)
            done += take

    def _take(self, count: int) -> list[xr.Dataset]:
        taken = []
        while count:
            first = self._waiting.pop(0)
            size = first.sizes["draw"]
            if size > count:
                self._waiting.insert(0, first.isel(draw=slice(count, None)))
                first, size = first.isel(draw=slice(count)), count
            taken.append(first)
            count -= size
        return taken

    def _write_rows(self, parts: list[xr.Dataset], count: int) -> None:
        for name, variable in parts[0].variables.items():
            if "draw" not in variable.dims:
                continue
            axis = variable.dims.index("draw")
            values = [part.variables[name].values for part in parts]
            block = values[0] if len(values) == 1 else np.concatenate(values, axis)
            where = (slice(None),) * axis + (slice(self._written, self._written + count),)
            target = self._target.variables[str(name)]
            target[where] = block.astype(target.dtype, copy=False)
        self._written += count


def _encoded(data: xr.Dataset) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
    """Apply the NetCDF conventions (booleans, times, coordinates) that xarray reads back."""
    variables, attrs = xr.conventions.encode_dataset_coordinates(data)
    encoded, attrs = xr.conventions.cf_encoder(variables, attrs)
    for name, variable in encoded.items():
        # xarray would mark NaN as missing; here NaN is a value like any other.
        if "_FillValue" not in {**variables[name].attrs, **variables[name].encoding}:
            variable.attrs.pop("_FillValue", None)
    return {str(name): variable for name, variable in encoded.items()}, dict(attrs)


def _define(
    target: netCDF4.Group | netCDF4.Dataset,
    variables: Mapping[str, xr.Variable],
    attrs: Mapping[str, Any],
    layout: Mapping[str, tuple[int, ...]] | None,
    unlimited: Collection[str] = ("draw",),
) -> None:
    target.setncatts(encode_attrs(attrs))
    for variable in variables.values():
        for dim, size in variable.sizes.items():
            if dim not in target.dimensions:
                grows = layout is not None and dim in unlimited
                target.createDimension(str(dim), None if grows else size)
    for name, variable in variables.items():
        attributes = encode_attrs({str(key): value for key, value in variable.attrs.items()})
        created = target.createVariable(
            name,
            str if variable.dtype.kind in "UO" else variable.dtype,
            tuple(str(dim) for dim in variable.dims),
            chunksizes=None if layout is None else layout.get(name),
            chunk_cache=CHUNK_CACHE_BYTES,
            fill_value=attributes.pop("_FillValue", False) if variable.dtype.kind != "U" else None,
        )
        created.set_auto_maskandscale(False)
        created.setncatts(attributes)


def _resized(variable: xr.Variable, sizes: Mapping[str, int]) -> xr.Variable:
    """Return a variable of other sizes that takes no memory."""
    shape = [sizes.get(str(dim), size) for dim, size in variable.sizes.items()]
    values = np.broadcast_to(np.zeros((), variable.dtype), shape)
    return xr.Variable(variable.dims, values, variable.attrs, fastpath=True)


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Cut numbers into runs that count up: places among them, and the numbers themselves."""
    for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
        first, last = int(run[0]), int(run[-1]) + 1
        start = int(numbers[first])
        yield slice(first, last), slice(start, start + last - first)


def _row_shape(variable: xr.Variable) -> list[int]:
    return [size for dim, size in variable.sizes.items() if dim != "draw"]


def _split(variable: xr.Variable, rows: int, limit: int) -> tuple[int, ...]:
    """Shape of a chunk of `rows` draws and about `limit` elements of each; chains stay whole."""
    shape = [rows if dim == "draw" else max(1, size) for dim, size in variable.sizes.items()]
    for axis, dim in enumerate(variable.dims):
        elements = math.prod(shape) // rows
        if dim not in ("chain", "draw") and elements > limit:
            shape[axis] = _even(shape[axis], max(1, shape[axis] * limit // elements))
    return tuple(shape)


def _even(size: int, most: int) -> int:
    """Length of the pieces when `size` is cut evenly into pieces of at most `most`."""
    return math.ceil(size / math.ceil(size / most))
