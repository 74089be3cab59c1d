"""A folder of checkpoints becomes a collection, one network in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyro_bnn.trace.checkpoints import read_checkpoints
from pyro_bnn.trace.collection.writer import CollectionWriter

__all__ = ["collect_checkpoints"]


def collect_checkpoints(
    folder: str | Path,
    directory: str | Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    prefix: str = "",
    dims: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Append the networks of a folder to a collection.

    A member has the name of its file, in which ``-`` stands for what a name cannot hold; so a
    folder that is imported twice is there once.

    Parameters
    ----------
    folder, shapes, prefix, dims
        See `pyro_bnn.trace.import_checkpoints`.
    directory : path
        The collection.

    Returns
    -------
    names : list of str
        The members.
    skipped : dict of str to str
        Files that were left out, and why.

    Raises
    ------
    UserError
        If no file can be taken, or the collection is of another model.
    """
    out = CollectionWriter(directory, dims=dims)
    skipped: dict[str, str] = {}
    names = []
    for file, tensors in read_checkpoints(Path(folder), shapes, prefix, skipped):
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", str(Path(file).with_suffix(""))).lstrip(".")
        names.append(out.append(tensors, name=name, recipe={"source": file}).name)
    return names, skipped
