"""What the sections of a report share: pictures, columns of numbers, sampler statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.format import ABSENT, number, percent
from pyro_bnn.diagnostics.verdict import LOOSE, STRICT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """An embedded picture: `uri` for the page, `alt` for who cannot see it, and a caption."""

    uri: str
    alt: str
    caption: str


def picture(picture: Figure, alt: str, caption: str) -> Picture:
    """Embed a figure."""
    from pyro_bnn.diagnostics.plots.style import data_uri

    return Picture(data_uri(picture), alt, caption)


def stat(trace: xr.DataTree, name: str) -> NDArray[np.float64] | None:
    """Read a sampler statistic, ``(chain, draw)``; None if the trace lacks it or has no draw."""
    if "sample_stats" not in trace.children or name not in trace["sample_stats"]:
        return None
    values = trace["sample_stats"][name].transpose("chain", "draw").to_numpy()
    return np.asarray(values, dtype=np.float64) if values.size else None


def over(reduce: Callable[[Any], Any], values: NDArray[np.float64]) -> float:
    """Reduce the numbers that are defined; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(reduce(defined)) if len(defined) else math.nan


def share(rhat: NDArray[np.float64]) -> str:
    """Write which shares of R-hats keep the strict and the loose rule."""
    defined = rhat[~np.isnan(rhat)]
    if not len(defined):
        return ABSENT
    return " / ".join(percent(float(np.mean(defined <= limit))) for limit in (STRICT, LOOSE))


def whole(value: float) -> str:
    """Write a number without decimals."""
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


_RESTS_ON = {
    "posterior": "weights",
    "canonical_posterior": "canonical weights",
    "symmetry": "the symmetry group",
    "sample_stats": "divergences, energy and cost",
    "predictions": "predictions",
    "predictions_constant_data": "scores that need labels",
    "predictions_ood": "inputs from elsewhere",
    "predictions_corrupted": "corrupted inputs",
    "log_likelihood": "rows left out",
    "point_estimate": "the point estimate",
}


def missing_groups(trace: xr.DataTree) -> str:
    """Say what the report leaves out as the trace lacks it; empty if it lacks nothing."""
    absent = [f"{text} (group {name})" for name, text in _RESTS_ON.items() if name not in trace]
    return f"The trace holds nothing on {', '.join(absent)}." if absent else ""
