"""The recipe that a trace was made by."""

from __future__ import annotations

import tomllib
from typing import Any

import xarray as xr

__all__ = ["recipe_of"]


def recipe_of(trace: xr.DataTree) -> dict[str, Any]:
    """Return the tables of a trace's recipe; none if it has no recipe that can be read."""
    try:
        return tomllib.loads(str(trace.attrs.get("recipe", "")))
    except tomllib.TOMLDecodeError:
        return {}
