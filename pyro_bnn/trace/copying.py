"""Copy a trace without some of its groups, block by block."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import netCDF4

from pyro_bnn.errors import UserError
from pyro_bnn.trace.netcdf import BLOCK_BYTES, CHUNK_CACHE_BYTES, small_chunk_cache


def copy_without(source: Path, target: Path, names: Collection[str]) -> None:
    """Copy a NetCDF-4 file but for some top-level groups.

    NetCDF cannot delete a group, so the others are copied variable by variable; a file that has
    none of the groups is copied byte by byte.

    Parameters
    ----------
    source
        The file.
    target
        The copy.
    names
        Groups to leave out.

    Raises
    ------
    UserError
        If `source` is missing or cannot be read.
    """
    try:
        with small_chunk_cache():
            old = netCDF4.Dataset(source)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The trace {source} is missing or cannot be read ({error}): give the trace.nc of a "
            "finished run, or resume the run so that it is assembled again."
        ) from error
    with old:
        if set(names) & set(old.groups):
            with netCDF4.Dataset(target, "w", format="NETCDF4") as new:
                _copy_group(old, new, set(names))
            return
    shutil.copyfile(source, target)


def _copy_group(
    source: netCDF4.Dataset | netCDF4.Group,
    target: netCDF4.Dataset | netCDF4.Group,
    skip: Collection[str] = (),
) -> None:
    target.setncatts({name: source.getncattr(name) for name in source.ncattrs()})
    for name, dimension in source.dimensions.items():
        target.createDimension(name, None if dimension.isunlimited() else dimension.size)
    for name, variable in source.variables.items():
        attrs = {key: variable.getncattr(key) for key in variable.ncattrs()}
        chunks = variable.chunking()
        filters = variable.filters() or {}
        text = variable.dtype is str
        copy: netCDF4.Variable[Any] = target.createVariable(  # type: ignore[call-overload]
            name,
            variable.dtype,
            variable.dimensions,
            chunk_cache=CHUNK_CACHE_BYTES,
            chunksizes=None if text or chunks == "contiguous" else chunks,
            fill_value=attrs.pop("_FillValue", None if text else False),
            zlib=bool(filters.get("zlib")),
            shuffle=bool(filters.get("shuffle")),
            complevel=filters.get("complevel") or 4,
        )
        copy.setncatts(attrs)
        if not text:
            variable.set_auto_maskandscale(False)
            copy.set_auto_maskandscale(False)
        for where in _blocks(variable):
            copy[where] = variable[where]
    for name, group in source.groups.items():
        if name not in skip:
            _copy_group(group, target.createGroup(name))


def _blocks(variable: netCDF4.Variable[Any]) -> Iterator[tuple[slice, ...]]:
    """Slices of about `BLOCK_BYTES` along the draws (else the first axis), whole chunks each."""
    dims = variable.dimensions
    if not dims:
        yield ()
        return
    axis = dims.index("draw") if "draw" in dims else 0
    length = variable.shape[axis]
    size = 8 if variable.dtype is str else variable.dtype.itemsize
    chunks = variable.chunking()
    unit = 1 if chunks is None or chunks == "contiguous" else chunks[axis]
    row = max(1, size * math.prod(variable.shape) // max(1, length))
    step = max(1, BLOCK_BYTES // (row * unit)) * unit
    for start in range(0, length, step):
        yield (*(slice(None),) * axis, slice(start, min(start + step, length)))
