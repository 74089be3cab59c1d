"""Open a trace lazily, finished or not, ours or any that ArviZ wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace.collection import BESIDE, Collection, is_collection
from pyro_bnn.trace.netcdf import chunk_layout, small_chunk_cache
from pyro_bnn.trace.seal import is_damaged
from pyro_bnn.trace.segments import chain_numbers, segment_paths

Chunks = str | int | Mapping[str, Any] | None


def open_trace(path: str | Path, chunks: Chunks = "auto") -> xr.DataTree:
    """Open a trace without reading its values.

    Parameters
    ----------
    path
        A run directory (its ``trace.nc``; while the run is unfinished, its segments one after
        another), a collection (its members that are whole), a NetCDF file, or a zarr store, by
        this package or any other that follows ArviZ's schema.
    chunks
        Chunks of the dask arrays as in `xarray.open_dataset`. ``"auto"``: in each group whole
        blocks of draws, as stored, the same for all its variables; ``None``: no dask, which most
        of ArviZ's functions do not take; values are read when they are first asked for.

    Returns
    -------
    xr.DataTree
        One node a group, with dask arrays. ``close()`` closes the files.

    Raises
    ------
    UserError
        If there is no trace at `path`, or a file of it cannot be read; of a zarr store, if zarr is
        missing or would unpickle what it reads. Nothing is deleted.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"There is no trace at {path}: give a run directory or a NetCDF file.")
    if path.is_file():
        return _open_file(path, chunks)
    if (path / "trace.nc").is_file():
        return _open_file(path / "trace.nc", chunks)
    if is_collection(path):
        return Collection.open(path).datatree(chunks)
    if segments := segment_paths(path):
        return _open_segments(segments, chunks)
    if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
        _refuse_zarr_that_unpickles(path)
        return xr.open_datatree(path, engine="zarr", chunks=chunks)
    raise UserError(
        f"The directory {path} holds neither trace.nc nor whole segments: the run has not written "
        "its first segment, or this is not a run directory."
    )


def unreadable(path: Path) -> str | None:
    """Say why a NetCDF file cannot be opened, or None if it can."""
    if is_damaged(path):
        return "its checksum does not fit"
    try:
        netCDF4.Dataset(path).close()
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def check_trace(path: str | Path) -> None:
    """Read a finished trace from end to end and refuse it if it is not what was written.

    Parameters
    ----------
    path
        A NetCDF file, a run directory, or a collection, of which the files beside its members are
        read. A file without a checksum, of another origin, is taken for sound.

    Raises
    ------
    UserError
        If its checksum does not fit.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        names = BESIDE if is_collection(path) else ("trace.nc",)
        files = [path / name for name in names]
    for file in files:
        if file.is_file() and is_damaged(file):
            raise UserError(
                f"The trace {file} is damaged, its checksum does not fit: {_cure(file)}."
            )


def check_segments(segments: list[Path]) -> None:
    """Refuse segments of which one cannot be opened.

    Parameters
    ----------
    segments
        The segments of one run.

    Raises
    ------
    UserError
        Naming the first such file and how many others are whole.
    """
    broken = [(path, why) for path in segments if (why := unreadable(path)) is not None]
    if not broken:
        return
    path, why = broken[0]
    others = len(segments) - 1
    if len(broken) == 1:
        rest = f"the other {others} segments are all whole"
    else:
        names = ", ".join(other.name for other, _ in broken[1:])
        rest = f"{others - len(broken) + 1} of the other {others} are whole, but not {names}"
    raise UserError(
        f"Segment {path} is truncated or unreadable ({why}); {rest}: restore it from a copy, or "
        "move it out of the directory to go on without its draws."
    )


def _open_file(path: Path, chunks: Chunks) -> xr.DataTree:
    try:
        return _open_netcdf(path, chunks)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The trace {path} is truncated or not a NetCDF-4 file ({error}): {_cure(path)}."
        ) from error


def _refuse_zarr_that_unpickles(path: Path) -> None:
    """Refuse a store where the library that decodes it would run code that the store holds."""
    if find_spec("zarr") is None:
        raise UserError(f"{path} is a zarr store: install zarr to read it.")
    pickles = import_module("numcodecs.pickles")
    if getattr(pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True):
        raise UserError(
            f"The zarr store {path} may hold pickles, and numcodecs would run the code in them: "
            "install numcodecs 0.16.6 or later, without NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE."
        )


def _cure(path: Path) -> str:
    segments = path.parent / "segments"
    if path.name == "trace.nc" and segments.is_dir():
        return f"remove it and resume the run, which assembles it again from {segments}"
    if path.name == "quotient.nc" and is_collection(path.parent):
        return f"make it again by pyro-bnn quotient {path.parent}"
    return "restore it from a copy"


def _open_netcdf(path: Path, chunks: Chunks) -> xr.DataTree:
    with small_chunk_cache():
        stored = xr.open_datatree(path, engine="netcdf4", chunks=None, cache=False)
    if chunks is None:
        return stored
    version = f"{path.resolve()}-{path.stat().st_mtime_ns}"
    tree = xr.DataTree.from_dict(
        {
            node.path: _chunked(node.to_dataset(inherit=False), chunks, version + node.path)
            for node in stored.subtree
        }
    )
    tree.set_close(stored.close)
    return tree


def _chunked(data: xr.Dataset, chunks: Any, token: str) -> xr.Dataset:
    if chunks == "auto" and "draw" in data.dims:
        chunks = {"draw": draw_block(data)}
    if isinstance(chunks, Mapping):
        chunks = {dim: size for dim, size in chunks.items() if dim in data.dims}
    return data.chunk(chunks, token=token)


def draw_block(data: xr.Dataset) -> int:
    """Choose how many draws to read at once: about `BLOCK_BYTES`, in whole stored chunks."""
    rows, _ = chunk_layout(data, data.sizes["draw"])
    stored = max(
        (
            (v.encoding.get("chunksizes") or v.shape)[v.dims.index("draw")]
            for v in data.data_vars.values()
            if "draw" in v.dims and v.encoding.get("chunksizes")
        ),
        default=1,
    )
    return max(stored, rows // stored * stored)


def _open_segments(segments: list[Path], chunks: Chunks) -> xr.DataTree:
    check_segments(segments)
    segments = _of_as_many_draws(segments)
    trees = [_open_netcdf(path, chunks) for path in segments]
    groups = {
        name: _joined([tree[name].to_dataset() for tree in trees]) for name in trees[0].children
    }
    joined = xr.DataTree.from_dict(groups)
    joined.set_close(_closer(trees))
    return joined


def _of_as_many_draws(segments: list[Path]) -> list[Path]:
    """Leave out blocks of chains that have fewer segments than the first, being unfinished."""
    blocks: dict[tuple[int, ...], list[Path]] = {}
    for path in segments:
        blocks.setdefault(chain_numbers(path), []).append(path)
    first = len(next(iter(blocks.values())))
    return [path for block in blocks.values() if len(block) == first for path in block]


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join segments of one group: along the draws, then along blocks of chains."""
    blocks: dict[tuple[int, ...], list[xr.Dataset]] = {}
    for part in parts:
        chains = tuple(part["chain"].to_numpy().tolist()) if "chain" in part.coords else ()
        blocks.setdefault(chains, []).append(part)
    rows = [_concat(block, "draw") for block in blocks.values()]
    return rows[0] if len(rows) == 1 else _concat(rows, "chain").sortby("chain")


def _concat(parts: list[xr.Dataset], dim: str) -> xr.Dataset:
    return xr.concat(
        parts,
        dim=dim,
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )


def _closer(trees: list[xr.DataTree]) -> Callable[[], None]:
    def close() -> None:
        for tree in trees:
            tree.close()

    return close
