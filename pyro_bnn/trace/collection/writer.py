"""Append members to a collection, from as many processes at once as there are."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import save
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.trace.atomic import TEMPORARY_SUFFIX, replacing
from pyro_bnn.trace.collection.head import HEAD, Head, Site, head_text, read_head
from pyro_bnn.trace.collection.manifest import NAME, Record, append_record

__all__ = ["CollectionWriter"]

MEMBERS = "members"


class CollectionWriter:
    """Appends networks of one model to a collection on disk.

    A member is a safetensors file, written under a temporary name, flushed and renamed; then its
    line is added to the manifest of this writer. A kill at any moment leaves whole members, and
    at worst a file that no manifest names, which readers report and leave out. Writers share
    nothing but the directory.

    Parameters
    ----------
    directory : path
        The collection; made by the first writer.
    writer : str, optional
        Name of this writer, unique among all that ever wrote; host, process and a random part by
        default.
    dims : mapping of str to sequence of str, optional
        Names of the axes of each site, as discovery gives them. The first writer's hold.

    Raises
    ------
    UserError
        If the name is of other characters than letters, digits, ``.``, ``_`` and ``-``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out = CollectionWriter(folder)
    ...     record = out.append({"weight": torch.zeros(3, 2)}, name="first", metrics={"loss": 0.7})
    >>> record.name, record.metrics
    ('first', {'loss': 0.7})
    """

    def __init__(
        self,
        directory: str | Path,
        writer: str | None = None,
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.directory = Path(directory)
        unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.writer = _checked(
            re.sub(r"[^A-Za-z0-9._-]", "-", unique) if writer is None else writer
        )
        self._dims = {site: list(names) for site, names in (dims or {}).items()}
        self._records: list[Record] = []
        self._shapes: dict[str, tuple[int, ...]] = {}

    def append(
        self,
        params: Mapping[str, Tensor | ArrayLike],
        *,
        name: str | None = None,
        seed: int | None = None,
        recipe: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Record:
        """Write one member.

        Parameters
        ----------
        params : dict of str to Tensor
            Its weights, by site; they are stored in their own precision.
        name : str, optional
            Of the member; writer and number by default. Who trains a member again after a kill
            gives it the same name, and the later file stands.
        seed : int, optional
            Of its training.
        recipe : mapping, optional
            How it was trained.
        metrics : mapping of str to float, optional
            What is known of its quality.

        Returns
        -------
        Record
            The line of the manifest.

        Raises
        ------
        UserError
            If the sites or their shapes differ from those of the collection, or the name cannot
            be the name of a file.
        """
        name = _checked(f"{self.writer}-{len(self._records):06d}" if name is None else name)
        own = {
            site: torch.as_tensor(values).detach().cpu().contiguous().clone()
            for site, values in params.items()
        }
        self._agree(own)
        content = save(own)
        # Another writer may be at the same member, after a worker was given up too early.
        folder = self.directory / MEMBERS
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{self.writer}{TEMPORARY_SUFFIX}"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{name}.safetensors")
        record = Record(
            name,
            hashlib.sha256(content).hexdigest(),
            len(content),
            seed,
            dict(recipe or {}),
            {key: float(value) for key, value in (metrics or {}).items()},
        )
        self._records.append(record)
        append_record(self.directory, self.writer, self._records)
        return record

    def _agree(self, params: Mapping[str, Tensor]) -> None:
        """Check the sites against those of the collection, which the first member lays down."""
        if not self._shapes:
            head = self.directory / HEAD
            if not head.is_file():
                sites = {site: _site(values) for site, values in params.items()}
                text = head_text(Head(sites, dict(self._dims)))
                self.directory.mkdir(parents=True, exist_ok=True)
                with replacing(head.with_name(f"{self.writer}.head")) as temporary:
                    temporary.write_text(text, encoding="utf-8")
                _first_wins(head.with_name(f"{self.writer}.head"), head)
            laid_down = read_head(self.directory).sites
            self._shapes = {name: site.shape for name, site in laid_down.items()}
        found = {site: tuple(tensor.shape) for site, tensor in params.items()}
        for site in {**self._shapes, **found}:
            if found.get(site) != self._shapes.get(site):
                raise UserError(
                    f"site '{site}' has shape {found.get(site)} in this member but "
                    f"{self._shapes.get(site)} in the collection {self.directory}: a collection "
                    "holds networks of one model"
                )


def _site(values: Tensor) -> Site:
    wide = values.dtype == torch.float64
    return Site(tuple(values.shape), np.dtype(np.float64 if wide else np.float32))


def _first_wins(own: Path, head: Path) -> None:
    """Give a file its final name unless there is one of that name already."""
    try:
        os.link(own, head)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        own.replace(head)
    own.unlink(missing_ok=True)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UserError(
            f"'{name}' cannot name a file of a collection: use letters, digits, '.', '_' and '-'"
        )
    return name
