"""Rank plots of some scalars."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from pyro_bnn.diagnostics.plots.facets import column, titled
from pyro_bnn.diagnostics.plots.style import MUTED, look

# Enough for a band of 99 %; ArviZ's default of 1,000 takes seconds.
_SIMULATIONS = 200


def plot_ranks(tree: xr.DataTree, titles: list[str]) -> Figure:
    """Draw, for each chain, how far its ranks are from uniform (Säilynoja et al. 2022).

    Parameters
    ----------
    tree
        From `scalar_tree`.
    titles
        What stands above each row.

    Returns
    -------
    matplotlib.figure.Figure
        A row a scalar, a line a chain; grey is the 99 % band of chains that agree.
    """
    from arviz_plots import plot_rank

    with look():
        picture, axes, collection = column(tree, "rank among the draws of all chains")
        plot_rank(
            tree,
            plot_collection=collection,
            ci_prob=0.99,
            stats={"ecdf_pit": {"n_simulations": _SIMULATIONS}},
            visuals={
                "xlabel": False,
                "title": False,
                "remove_axis": False,
                "ecdf_lines": {"width": 0.7, "alpha": 0.8},
                "credible_interval": {"color": MUTED, "alpha": 0.25},
            },
        )
        titled(axes, titles)
    return picture
