"""The head of a collection: the sites of its members, their shapes and the names of axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_bnn.errors import UserError

__all__ = ["HEAD", "Head", "Site", "head_text", "read_head"]

HEAD = "collection.json"


class Site(NamedTuple):
    """Shape and type of a site."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Head(NamedTuple):
    """Sites by name, and the names of the axes of those that have some."""

    sites: Mapping[str, Site]
    dims: Mapping[str, Sequence[str]]


def head_text(head: Head) -> str:
    """Return the text of a head, as its file holds it."""
    sites = {
        name: {"shape": list(site.shape), "double": site.dtype == np.float64}
        for name, site in head.sites.items()
    }
    return json.dumps({"version": 1, "sites": sites, "dims": head.dims}, indent=1)


def read_head(directory: Path) -> Head:
    """Read the head of a collection.

    Raises
    ------
    UserError
        If there is none, or it is not what a writer lays down.
    """
    path = directory / HEAD
    if not path.is_file():
        raise UserError(f"{directory} holds no collection: it has no file {HEAD}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sites = {name: _site(entry) for name, entry in content["sites"].items()}
        dims = {name: _names(names) for name, names in content["dims"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not the head of a collection: restore it from a copy, or from that of "
            "another collection of the same model"
        ) from error
    return Head(sites, dims)


def _site(entry: Mapping[str, Any]) -> Site:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape} is no shape")
    return Site(shape, np.dtype(np.float64 if entry["double"] else np.float32))


def _names(names: Sequence[str]) -> Sequence[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{names} are no names of axes")
    return names
