"""R-hat in the three spaces, on one axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.distributions import Scale, rows

Array = NDArray[np.float64]

_FLOOR = 5e-4

_SCALE = Scale(
    place=lambda rhat: np.log10(np.maximum(rhat - 1.0, _FLOOR)),
    ticks=(1.001, 1.01, 1.05, 1.2, 2.0, 5.0, 11.0),
    rules=(1.01, 1.05),
    label="R-hat (distance from 1 on a logarithmic axis; dashed: 1.01 and 1.05)",
    write=lambda tick: f"{tick:g}",
)


def plot_rhat(rhat: Mapping[str, Array]) -> Figure:
    """Draw the distribution of R-hat in each space.

    Parameters
    ----------
    rhat
        Space to its R-hats, shape ``(scalar,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A row a space; values at or below 1.0005 stand at the left end.
    """
    return rows(
        rhat,
        _SCALE,
        lambda numbers: f"median {np.median(numbers):.3f}, maximum {np.max(numbers):.3f}",
    )
