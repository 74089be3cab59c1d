"""The members of a collection as arrays of xarray that read what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from pyro_bnn.trace.collection.tensors import Header, read_rows
from pyro_bnn.trace.netcdf import LARGEST_CHUNK
from pyro_bnn.trace.schema import SAMPLE_DIMS

__all__ = ["MemberFile", "member_dataset"]


@dataclass(frozen=True)
class MemberFile:
    """A member that was found whole: its file and the head of that."""

    path: Path
    header: Header


class _SiteArray(BackendArray):
    """One site of all members, ``(member, 1, *shape)``."""

    def __init__(
        self, files: Sequence[MemberFile], site: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._files = list(files)
        self._site = site
        self.shape = (len(files), 1, *shape)
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        members = np.arange(self.shape[0])[key[0]]
        inner = key[2:]
        rows, rest = _range(inner[0], self.shape[2]) if inner else (slice(0, 1), None)
        found = [
            self._member(number, rows, () if rest is None else (rest, *inner[1:]))
            for number in np.atleast_1d(members)
        ]
        values = np.stack(found) if found else np.empty((0, *self._inner_shape(inner)), self.dtype)
        values = values[:, None][:, key[1]]
        picked: NDArray[Any] = values[0] if np.ndim(members) == 0 else values
        return picked

    def _member(self, number: int, rows: slice, inner: tuple[Any, ...]) -> NDArray[Any]:
        file = self._files[number]
        values = read_rows(file.path, file.header, self._site, rows)
        # From the last axis on, so that an axis that goes does not shift those still to come.
        for axis in reversed(range(len(inner))):
            values = values[(slice(None),) * axis + (inner[axis],)]
        return values.astype(self.dtype, copy=False)

    def _inner_shape(self, inner: tuple[Any, ...]) -> list[int]:
        picked = (np.arange(n)[k] for n, k in zip(self.shape[2:], inner, strict=True))
        return [len(p) for p in picked if np.ndim(p)]


def member_dataset(
    files: Sequence[MemberFile],
    names: Sequence[str],
    sites: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    dims: Mapping[str, Sequence[str]],
    chunks: Any,
) -> xr.Dataset:
    """Lay members out in ArviZ's schema: a member is a chain of one draw.

    Parameters
    ----------
    files : sequence of MemberFile
        The members in order.
    names : sequence of str
        Their names: the coordinate ``member``.
    sites : mapping
        Shape and type of each site.
    dims : mapping
        Names of the axes of sites; ``<site>_dim_0`` and so on for sites left out.
    chunks
        ``"auto"``, dask chunks of some members of at most 4 MiB; a mapping for
        `xarray.Dataset.chunk`; None, arrays that read when they are indexed, without dask.
    """
    variables: dict[str, xr.Variable] = {}
    for site, (shape, dtype) in sites.items():
        inner = dims.get(site) or [f"{site}_dim_{axis}" for axis in range(len(shape))]
        array = indexing.LazilyIndexedArray(_SiteArray(files, site, shape, dtype))
        variable = xr.Variable((*SAMPLE_DIMS, *inner), array, fastpath=True)
        if chunks is not None:
            variable = _chunked(variable, chunks, tokenize([f.path for f in files], site))
        variables[site] = variable
    coords = {
        "chain": np.arange(len(files)),
        "draw": np.arange(1),
        "member": ("chain", np.asarray(names, dtype=object)),
    }
    return xr.Dataset(variables, coords=coords)


def _chunked(variable: xr.Variable, chunks: Any, token: str) -> xr.Variable:
    if chunks == "auto":
        row = max(1, variable.nbytes // max(1, variable.sizes["chain"]))
        sizes = {"chain": max(1, LARGEST_CHUNK // row)}
    else:
        sizes = {dim: size for dim, size in chunks.items() if dim in variable.dims}
    chunked: xr.Variable = variable.chunk(sizes, name=f"members-{token}")
    return chunked


def _range(key: Any, size: int) -> tuple[slice, Any]:
    """Turn an index into the smallest range that holds it, and the index inside of that."""
    wanted = np.arange(size)[key]
    if np.ndim(wanted) == 0:
        return slice(int(wanted), int(wanted) + 1), 0
    if len(wanted) == 0:
        return slice(0, 0), slice(None)
    first, last = int(wanted.min()), int(wanted.max())
    whole = np.array_equal(wanted, np.arange(first, last + 1))
    return slice(first, last + 1), slice(None) if whole else wanted - first
