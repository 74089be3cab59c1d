"""Energy: its distribution against that of its change in one transition."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, ORANGE, RULE, bare, figure, look


def plot_energies(energy: NDArray[np.float64]) -> Figure:
    """Draw marginal and transition energy and each chain's BFMI.

    Parameters
    ----------
    energy
        Shape ``(chain, draw)``.

    Returns
    -------
    matplotlib.figure.Figure
        If the change is much narrower than the marginal, momentum resampling explores the energy
        slowly (Betancourt 2016).
    """
    from arviz_plots import PlotCollection, plot_energy  # type: ignore[attr-defined]

    chains, draws = energy.shape
    coords = {"chain": np.arange(chains), "draw": np.arange(draws)}
    stats = xr.Dataset({"energy": (("chain", "draw"), energy)}, coords=coords)
    with look():
        picture = figure(2.9)
        bfmi, density = picture.subplots(1, 2, width_ratios=(1, 1.9))
        viz = xr.Dataset(
            {
                "figure": np.array(picture, dtype=object),
                "plot": ("column", np.array([bfmi, density], dtype=object)),
                "row_index": ("column", [0, 0]),
                "col_index": ("column", [0, 1]),
            },
            coords={"column": ["bfmi", "energy"]},
        )
        data = xr.Dataset(
            {"Energy": (("column", "energy"), np.zeros((2, 2)))},
            coords={"column": ["bfmi", "energy"], "energy": ["marginal", "transition"]},
        )
        collection = PlotCollection(  # type: ignore[no-untyped-call]
            data,
            xr.DataTree(viz),
            aes={"color": ["energy"]},
            color=[BLUE, ORANGE],
            backend="matplotlib",
        )
        plot_energy(
            xr.DataTree.from_dict({"sample_stats": stats}),
            plot_collection=collection,
            visuals={
                "legend": False,
                "title": False,
                "ylabel": False,
                "remove_axis": False,
                "face": {"alpha": 0.2},  # type: ignore[dict-item]
                "ref_line": {"color": MUTED},  # type: ignore[dict-item]
                "bfmi_points": {"color": BLUE},
            },
        )
        bare(density)
        density.set_xlabel("energy")
        density.set_title("")
        density.set_ylim(0, 1.32 * density.get_ylim()[1])
        density.text(0.0, 0.96, "energy about its mean", color=BLUE, transform=density.transAxes)
        density.text(
            0.0, 0.88, "change in one transition", color=ORANGE, transform=density.transAxes
        )
        bfmi.set_xlabel("BFMI")
        bfmi.set_ylabel("chain")
        bfmi.set_xlim(0, max(1.0, 1.1 * bfmi.get_xlim()[1]))
        bfmi.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        bfmi.grid(axis="x", color=RULE, lw=0.5)
    return picture
