"""A column of ArviZ plots, one scalar a row, on a figure of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import chain_colours, figure

ROW = 0.95


def scalar_tree(
    labels: list[str], draws: NDArray[Any], diverging: NDArray[np.bool_] | None
) -> xr.DataTree:
    """Put some scalars into a tree that ArviZ's plots read.

    Parameters
    ----------
    labels
        Name of each scalar.
    draws
        Shape ``(scalar, chain, draw)``.
    diverging
        Shape ``(chain, draw)``, if known.
    """
    coords = {"chain": np.arange(draws.shape[1]), "draw": np.arange(draws.shape[2])}
    values = xr.Dataset(
        {"value": (("scalar", "chain", "draw"), draws)}, coords={**coords, "scalar": labels}
    )
    groups = {"posterior": values}
    if diverging is not None:
        stats = {"diverging": (("chain", "draw"), diverging)}
        groups["sample_stats"] = xr.Dataset(stats, coords=coords)
    return xr.DataTree.from_dict(groups)


def column(tree: xr.DataTree, label: str) -> tuple[Figure, list[Axes], Any]:
    """Make a figure of one row a scalar and the ArviZ plot collection on it.

    Returns
    -------
    Figure
        Outside of pyplot.
    list of Axes
        Top to bottom.
    arviz_plots.PlotCollection
        Chains by colour.
    """
    from arviz_plots import PlotCollection  # type: ignore[attr-defined]

    values = tree["posterior"].to_dataset()
    count = values.sizes["scalar"]
    picture = figure(0.5 + ROW * count)
    axes = picture.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    viz = xr.Dataset(
        {
            "figure": np.array(picture, dtype=object),
            "plot": ("scalar", axes),
            "row_index": ("scalar", np.arange(count)),
            "col_index": ("scalar", np.zeros(count, dtype=int)),
        },
        coords={"scalar": values["scalar"]},
    )
    collection = PlotCollection(  # type: ignore[no-untyped-call]
        values,
        xr.DataTree(viz),
        aes={"color": ["chain"], "overlay": ["chain"]},
        color=chain_colours(values.sizes["chain"]),
        backend="matplotlib",
    )
    axes[-1].set_xlabel(label)
    return picture, list(axes), collection


def titled(axes: list[Axes], titles: list[str]) -> None:
    """Write a title above each row, small and to the left."""
    for one, title in zip(axes, titles, strict=True):
        one.set_title(title, fontsize=8.5, pad=3)
        one.locator_params(axis="y", nbins=3)
