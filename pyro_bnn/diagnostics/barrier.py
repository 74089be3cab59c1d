"""The line between two networks: loss and density along it, and how high its barrier is.

Entezari, Sedghi, Saukh and Neyshabur (2022) conjecture that the barrier between two networks
vanishes once one is relabelled to fit the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

GROUP = "mode_line"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """What holds along the line from one network to another.

    Attributes
    ----------
    at
        Share of the way, 0 to 1, shape ``(point,)``.
    loss
        Negative log likelihood of a training row, nats, shape ``(point,)``.
    log_density
        Log posterior density up to a constant, shape ``(point,)``.
    """

    at: Array
    loss: Array
    log_density: Array

    @property
    def barrier(self) -> float:
        """Height of the loss's barrier, as `barrier` defines it."""
        return barrier(self.at, self.loss)

    @property
    def rise(self) -> float:
        """How far the loss is above the mean of its ends halfway, as `rise` defines it."""
        return rise(self.at, self.loss)


def barrier(at: Array, loss: Array) -> float:
    """Return how far the loss rises above the straight line between its ends.

    Parameters
    ----------
    at
        Share of the way, 0 first and 1 last, shape ``(point,)``.
    loss
        Loss at each point, shape ``(point,)``.

    Returns
    -------
    float
        The largest of ``loss(t) - (1 - t) loss(0) - t loss(1)``; never negative, as it is zero at
        the ends.

    Examples
    --------
    >>> barrier(np.array([0.0, 0.5, 1.0]), np.array([1.0, 4.0, 3.0]))
    2.0
    """
    chord = (1 - at) * loss[0] + at * loss[-1]
    return float(np.max(loss - chord))


def rise(at: Array, loss: Array) -> float:
    """Return how far the loss halfway is above the mean of its ends.

    Between two bad networks it is negative, where the barrier is zero and tells nothing.

    Parameters
    ----------
    at
        Share of the way, 0 first and 1 last, shape ``(point,)``.
    loss
        Loss at each point, shape ``(point,)``.

    Returns
    -------
    float
        ``loss(1/2) - (loss(0) + loss(1)) / 2``, interpolated if no point is halfway.

    Examples
    --------
    >>> rise(np.array([0.0, 0.5, 1.0]), np.array([1.0, 1.5, 3.0]))
    -0.5
    """
    return float(np.interp(0.5, at, loss) - (loss[0] + loss[-1]) / 2)


def along(
    start: Mapping[str, Any],
    end: Mapping[str, Any],
    evaluate: Callable[[dict[str, Array]], tuple[Any, Any]],
    points: int = 25,
) -> Line:
    """Evaluate a model along the line between two of its draws.

    Parameters
    ----------
    start, end
        Site to its value in unconstrained space, shape ``(*site,)``.
    evaluate
        From sites of shape ``(point, *site)`` to the loss and the log density, each ``(point,)``.
    points
        Points on the line, ends included.
    """
    at = np.linspace(0, 1, points)
    values = {}
    for name, first in start.items():
        first, last = np.asarray(first), np.asarray(end[name])
        share = at.astype(first.dtype).reshape(-1, *(1,) * first.ndim)
        values[name] = (1 - share) * first + share * last
    loss, log_density = evaluate(values)
    return Line(at, np.asarray(loss, dtype=np.float64), np.asarray(log_density, dtype=np.float64))


def mode_lines(trace: xr.DataTree) -> dict[str, Line]:
    """Read the lines between two chains that a run recorded.

    Parameters
    ----------
    trace
        A trace; its group ``mode_line`` holds ``loss`` and ``log_density`` over ``(space, at)``.

    Returns
    -------
    dict
        ``"weight"`` and ``"canonical"`` to their lines; empty if the trace has none, or they are
        not finite.
    """
    if GROUP not in trace.children:
        return {}
    group = trace[GROUP].to_dataset()
    if not {"space", "at"} <= set(group.coords) or not {"loss", "log_density"} <= set(group):
        return {}
    found = {}
    for space in group["space"].to_numpy():
        one = group.sel(space=space)
        line = Line(*(one[name].to_numpy().astype(float) for name in ("at", "loss", "log_density")))
        if np.isfinite(line.loss).all() and np.isfinite(line.log_density).all():
            found[str(space)] = line
    return found


def null_rises(trace: xr.DataTree) -> dict[str, Array]:
    """Read how far the loss rises between draws of the prior, the control of `mode_lines`.

    Parameters
    ----------
    trace
        A trace; its group ``mode_line`` holds ``null_loss`` over ``(space, pair, at)``.

    Returns
    -------
    dict
        ``"weight"`` and ``"canonical"`` to the `rise` of the pairs whose losses are finite in
        both, shape ``(pair,)``; empty if the trace has none.
    """
    if GROUP not in trace.children or "null_loss" not in trace[GROUP]:
        return {}
    group = trace[GROUP].to_dataset()
    at = group["at"].to_numpy().astype(float)
    loss = group["null_loss"].transpose("space", "pair", "at").to_numpy().astype(float)
    loss = loss[:, np.isfinite(loss).all(axis=(0, 2))]
    if not loss.shape[1]:
        return {}
    spaces = map(str, group["space"].to_numpy())
    return {
        space: np.array([rise(at, one) for one in losses])
        for space, losses in zip(spaces, loss, strict=True)
    }
