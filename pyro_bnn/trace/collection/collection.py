"""A collection of networks on disk: listed, filtered, opened lazily, verified."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import xarray as xr

from pyro_bnn.trace.collection.arrays import MemberFile, member_dataset
from pyro_bnn.trace.collection.head import HEAD, Site, read_head
from pyro_bnn.trace.collection.manifest import Record, manifest_records
from pyro_bnn.trace.collection.tensors import Place, read_header
from pyro_bnn.trace.collection.writer import MEMBERS

__all__ = ["CANONICAL", "Collection", "is_collection"]

CANONICAL = "canonical"
"""The folder inside of a collection that holds its canonical members, a collection too."""

BESIDE = ("quotient.nc", "predictions.nc")
"""Traces without weights that lie beside the members: what was computed from them."""

Verify = Literal["checksum", "size"]

_THREADS = 4


def is_collection(path: str | Path) -> bool:
    """Whether a directory holds a collection."""
    return (Path(path) / HEAD).is_file()


@dataclass(frozen=True)
class Collection:
    """Members of one model, in the order of their names.

    Attributes
    ----------
    directory : Path
        Where it is.
    records : tuple of Record
        The members that are whole: name, seed, recipe, metrics, hash.
    skipped : dict of str to str
        What was found damaged or half written and is left out, and why.
    """

    directory: Path
    records: tuple[Record, ...]
    skipped: Mapping[str, str]
    _sites: Mapping[str, Site]
    _dims: Mapping[str, Sequence[str]]
    _files: Mapping[str, MemberFile]

    @classmethod
    def open(cls, directory: str | Path, verify: Verify = "checksum") -> Self:
        """Read the manifests and verify every member.

        Parameters
        ----------
        directory : path
            The collection. Writers may be at it: what they had appended is seen.
        verify : {"checksum", "size"}
            Compare every file with its SHA-256, which reads them all; or its size and the shapes
            in its head only.

        Raises
        ------
        UserError
            If there is no collection, or its head is damaged.
        """
        directory = Path(directory)
        sites, dims = read_head(directory)
        lines: dict[str, list[Record]] = {}
        skipped: dict[str, str] = {}
        for where, record in manifest_records(directory):
            if record is None:
                skipped[where] = "the line of the manifest cannot be read"
            else:
                lines.setdefault(record.name, []).append(record)
        skipped |= _unrecorded(directory, lines)

        def check(name: str) -> tuple[Record, MemberFile] | str:
            return _checked(directory, lines[name], sites, verify)

        records, files = [], {}
        layouts: dict[Any, Mapping[str, Place]] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for name, found in zip(sorted(lines), pool.map(check, sorted(lines)), strict=True):
                if isinstance(found, str):
                    skipped[name] = found
                else:
                    records.append(found[0])
                    files[name] = _sharing(found[1], layouts)
        return cls(directory, tuple(records), skipped, sites, dims, files)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.records)

    @property
    def names(self) -> list[str]:
        """Names of the members, in order."""
        return [record.name for record in self.records]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each site."""
        return {name: site.shape for name, site in self._sites.items()}

    @property
    def member_bytes(self) -> int:
        """What one member weighs in memory."""
        return sum(
            site.dtype.itemsize * int(np.prod(site.shape, dtype=np.int64))
            for site in self._sites.values()
        )

    def select(
        self,
        names: Sequence[str] | None = None,
        *,
        seeds: Sequence[int] | range | None = None,
        recipe: Mapping[str, Any] | None = None,
        metrics: Mapping[str, tuple[float | None, float | None]] | None = None,
        where: Callable[[Record], bool] | None = None,
    ) -> Self:
        """Return the members that fit all that is given.

        Parameters
        ----------
        names : sequence of str, optional
            These members.
        seeds : sequence of int or range, optional
            Trained with one of these seeds.
        recipe : mapping, optional
            Values that their recipe has; nested tables by dotted keys (``"run.chains"``).
        metrics : mapping of str to (least, most), optional
            Closed ranges, None for no limit; a member that lacks the metric does not fit.
        where : callable, optional
            Any other condition on a record.
        """
        wanted = None if names is None else set(names)
        among = None if seeds is None else set(seeds)

        def fits(record: Record) -> bool:
            return (
                (wanted is None or record.name in wanted)
                and (among is None or record.seed in among)
                and all(_looked_up(record.recipe, key) == v for key, v in (recipe or {}).items())
                and all(_within(record.metrics.get(k), *r) for k, r in (metrics or {}).items())
                and (where is None or where(record))
            )

        records = tuple(filter(fits, self.records))
        files = {record.name: self._files[record.name] for record in records}
        return replace(self, records=records, _files=files)

    def dataset(self, chunks: Any = "auto") -> xr.Dataset:
        """Return the weights lazily: a member is a chain of one draw, ``member`` names it.

        Parameters
        ----------
        chunks
            ``"auto"``: dask arrays, chunks of whole members of at most 4 MiB a site; a mapping
            for `xarray.Dataset.chunk`; None: read when indexed, without dask.
        """
        files = [self._files[name] for name in self.names]
        return member_dataset(files, self.names, self._sites, self._dims, chunks)

    def datatree(self, chunks: Any = "auto") -> xr.DataTree:
        """Return a trace: ``posterior``, and what has been computed from the members.

        Once there are canonical members or predictions, all groups hold the members that have
        them.
        """
        from pyro_bnn.trace.reader import open_trace

        shown = self
        groups: dict[str, xr.Dataset] = {}
        opened: list[xr.DataTree] = []
        for path in (self.directory / name for name in BESIDE):
            if path.is_file():
                opened.append(open_trace(path, chunks))
                groups |= {str(n): node.to_dataset() for n, node in opened[-1].children.items()}
        for data in groups.values():
            if "member" in data.coords:
                shown = shown.select(data["member"].to_numpy().astype(str).tolist())
        if is_collection(self.directory / CANONICAL):
            canonical = Collection.open(self.directory / CANONICAL, verify="size")
            shown = shown.select(canonical.names)
            groups["canonical_posterior"] = canonical.select(shown.names).dataset(chunks)
        for name, data in groups.items():
            if "member" in data.coords and len(data["member"]) > len(shown):
                kept = np.isin(data["member"].to_numpy().astype(str), shown.names)
                groups[name] = data.isel(chain=kept).assign_coords(chain=np.arange(len(shown)))
        tree = xr.DataTree.from_dict({"posterior": shown.dataset(chunks), **groups})
        tree.attrs.update(source=str(self.directory), method="collection")

        def close() -> None:
            for one in opened:
                one.close()

        tree.set_close(close)
        return tree

    def blocks(self, block_bytes: int = 2**22) -> Iterator[list[str]]:
        """Cut the members into blocks of about so many bytes, one member at least."""
        each = max(1, block_bytes // max(1, self.member_bytes))
        for start in range(0, len(self), each):
            yield self.names[start : start + each]

    def export(self, folder: str | Path) -> list[Path]:
        """Copy the members as ``<name>.safetensors``, and their lines as ``manifest.jsonl``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.safetensors" for name in self.names]
        for name, path in zip(self.names, paths, strict=True):
            shutil.copyfile(self._files[name].path, path)
        lines = "".join(f"{json.dumps(asdict(record))}\n" for record in self.records)
        (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
        return paths


def _checked(
    directory: Path, records: Sequence[Record], sites: Mapping[str, Site], verify: Verify
) -> tuple[Record, MemberFile] | str:
    """Find the line that a member's file agrees with; if there is none, say what is wrong."""
    path = directory / MEMBERS / f"{records[-1].name}.safetensors"
    try:
        size = path.stat().st_size
    except OSError:
        return "its file is missing"
    fitting = [record for record in records if record.size == size]
    if not fitting:
        return f"its file has {size:,} bytes, not {records[-1].size:,}"
    if verify == "checksum":
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        fitting = [record for record in fitting if record.sha256 == digest]
    if not fitting:
        return "its file is not what was written: the checksum differs"
    try:
        header = read_header(path)
    except (OSError, ValueError) as error:
        return f"its file cannot be read: {error}"
    for name, site in sites.items():
        if name not in header.places or header.places[name].shape != site.shape:
            return f"it has no '{name}' of shape {site.shape}"
    return fitting[-1], MemberFile(path, header)


def _sharing(file: MemberFile, layouts: dict[Any, Mapping[str, Place]]) -> MemberFile:
    """Let the files that are laid out alike, nearly all, have one table of places."""
    places = file.header.places
    shared = layouts.setdefault(tuple(sorted(places.items())), places)
    return replace(file, header=replace(file.header, places=shared))


def _unrecorded(directory: Path, lines: Mapping[str, Any]) -> dict[str, str]:
    """Name files that a killed writer, or one that is at work, has left without a line."""
    found = {}
    for path in sorted((directory / MEMBERS).glob("*")):
        if path.suffix == ".safetensors":
            if path.stem not in lines:
                found[path.stem] = "its writer ended before the manifest named it"
        else:
            found[path.name] = "it is half written"
    return found


def _looked_up(recipe: Mapping[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _within(value: float | None, least: float | None, most: float | None) -> bool:
    if value is None or value != value:
        return False
    return (least is None or value >= least) and (most is None or value <= most)
