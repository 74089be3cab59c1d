"""Trace plots of some scalars."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from pyro_bnn.diagnostics.plots.facets import column, titled
from pyro_bnn.diagnostics.plots.style import MUTED, ORANGE, look


def plot_traces(tree: xr.DataTree, titles: list[str]) -> Figure:
    """Draw the draws of each chain one after another.

    Parameters
    ----------
    tree
        From `scalar_tree`.
    titles
        What stands above each row.

    Returns
    -------
    matplotlib.figure.Figure
        A row a scalar, a line a chain, divergences as ticks.
    """
    from arviz_plots import plot_trace

    with look():
        picture, axes, collection = column(tree, "draw")
        plot_trace(
            tree,
            plot_collection=collection,
            visuals={
                "xlabel": False,
                "title": False,
                "ticklabels": False,
                "trace": {"width": 0.6, "alpha": 0.75},
                "divergence": {"color": ORANGE},
            },
        )
        titled(axes, titles)
        for one in axes:
            one.tick_params(colors=MUTED)
    return picture
