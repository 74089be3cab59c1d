"""Bulk effective sample size in the three spaces, on one axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.distributions import Scale, rows

Array = NDArray[np.float64]

_SCALE = Scale(
    place=np.log10,
    ticks=(3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000),
    rules=(400,),
    label="bulk effective sample size, all chains (dashed: 400)",
    write=lambda tick: f"{tick:,.0f}",
)


def plot_ess(ess: Mapping[str, Array]) -> Figure:
    """Draw the distribution of the effective sample size in each space.

    Parameters
    ----------
    ess
        Space to its effective sample sizes, shape ``(scalar,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A row a space.
    """
    return rows(
        ess,
        _SCALE,
        lambda numbers: f"median {np.median(numbers):,.0f}, minimum {np.min(numbers):,.0f}",
    )
