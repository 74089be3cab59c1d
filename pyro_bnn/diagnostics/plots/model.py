"""Pareto k of left-out rows, and stacking weights of chains."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, bare, figure, look

Array = NDArray[np.float64]
_BINS = 40


def plot_pareto_k(pareto_k: Array, limit: float) -> Figure:
    """Draw the distribution of Pareto k over rows.

    Parameters
    ----------
    pareto_k
        Shape ``(row,)``; what is not finite is left out.
    limit
        The largest reliable value, marked.

    Returns
    -------
    matplotlib.figure.Figure
        A histogram; the share beyond the limit is written beside it.
    """
    values = pareto_k[np.isfinite(pareto_k)]
    beyond = int(np.sum(values > limit))
    with look():
        picture = figure(2.4)
        axes = picture.subplots()
        axes.hist(values, _BINS, color=BLUE, alpha=0.85, lw=0)
        axes.axvline(limit, color=MUTED, lw=0.9, ls=(0, (3, 3)))
        told = f"{beyond:,} of {len(pareto_k):,} rows above {limit:.2g}"
        axes.set_title(told, loc="right", fontsize="medium")
        bare(axes)
        axes.set_xlabel("Pareto k")
    return picture


def plot_weights(weights: Array) -> Figure:
    """Draw stacking weights in order of size.

    Parameters
    ----------
    weights
        Shape ``(chain,)``.

    Returns
    -------
    matplotlib.figure.Figure
        A bar a chain, with its number below where there are at most 24.
    """
    order = np.argsort(weights)[::-1]
    with look():
        picture = figure(2.4)
        axes = picture.subplots()
        axes.bar(np.arange(len(weights)), weights[order], color=BLUE, alpha=0.85, lw=0)
        axes.axhline(1 / len(weights), color=MUTED, lw=0.9, ls=(0, (3, 3)))
        few = len(weights) <= 24
        axes.set_xticks(np.arange(len(weights)) if few else [], order if few else [])
        axes.set_xlabel("chain" if few else f"{len(weights)} chains")
        axes.set_ylabel("stacking weight")
        axes.set_ylim(bottom=0)
    return picture
