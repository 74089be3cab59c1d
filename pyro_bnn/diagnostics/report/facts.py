"""The head of a report: what was run, by what."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import xarray as xr

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import duration
from pyro_bnn.diagnostics.recipe import recipe_of

_FROM_RECIPE = (
    ("kernel.name", "Kernel"),
    ("run.warmup", "Warm-up draws"),
    ("run.seed", "Seed"),
    ("run.device", "Device"),
    ("run.likelihood_temperature", "Temperature of the likelihood"),
    ("run.posterior_temperature", "Temperature of the posterior"),
)
_VERSIONS = ("torch", "pyro-ppl", "arviz-stats", "numpy")


def facts(trace: xr.DataTree, found: Diagnosis) -> list[tuple[str, str]]:
    """List what the head of the page states, as name and value."""
    attrs = trace.attrs
    sampler = found.sampler
    stated = [("Model", str(attrs["model"]))] if "model" in attrs else []
    if attrs.get("data"):
        stated.append(("Data", str(attrs["data"])))
    if sampler.weights:
        stated.append(("Posterior", f"{sampler.weights:,} weights"))
    if sampler.draws:
        stated.append(("Sample", f"{sampler.chains:,} chains of {sampler.draws:,} draws"))
    if not math.isnan(sampler.seconds):
        stated.append(("Time", duration(sampler.seconds)))
    recipe = _by_key(recipe_of(trace))
    for path, name in _FROM_RECIPE:
        value = recipe.get(path)
        if value is not None:
            stated.append((name, str(value)))
    if "created_at" in attrs:
        stated.append(("Date", str(attrs["created_at"])[:16].replace("T", " ")))
    if "creation_library" in attrs:
        made = f"{attrs['creation_library']} {attrs.get('creation_library_version', '')}".strip()
        stated.append(("Written by", made))
    stated.append(("Report made with", _versions()))
    return stated


def _by_key(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe by table and key, such as ``run.seed``."""
    return {
        f"{name}.{key}": value
        for name, table in tables.items()
        if isinstance(table, dict)
        for key, value in table.items()
    }


@cache
def _versions() -> str:
    parts = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts)
