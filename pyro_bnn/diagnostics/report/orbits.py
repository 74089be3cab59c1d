"""Pictures of weights before and after the quotient."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather
from pyro_bnn.diagnostics.convergence import SPACES
from pyro_bnn.diagnostics.embedding import embedding
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_ROWS = 4
_DRAWS = 2_000

Array = NDArray[np.float64]


def embedding_pictures(trace: xr.DataTree) -> list[Picture]:
    """Draw the principal components of the draws in each space."""
    from pyro_bnn.diagnostics.plots.embedding import plot_embeddings

    found = {space: embedding(trace, space) for space in SPACES}
    shown = {space: one for space, one in found.items() if one is not None}
    if not shown:
        return []
    return [
        picture(
            plot_embeddings({str(space): one for space, one in shown.items()}),
            "Draws in the plane of their first two principal components, a panel a space.",
            "Draws in the plane of their largest variance, a colour a chain. Clusters of one"
            " colour: chains that stay apart in that space.",
        )
    ]


def quotient_pictures(trace: xr.DataTree) -> list[Picture]:
    """Draw the mass of the draws, and some weights' densities, before and after the quotient."""
    from pyro_bnn.diagnostics.plots.marginals import plot_marginals
    from pyro_bnn.diagnostics.plots.mass import plot_mass

    pictures = []
    masses = _masses(trace)
    if masses is not None:
        pictures.append(
            picture(
                plot_mass(*masses),
                "Sum of squared weights of each draw against the least on its orbit.",
                "Mass: how far the sampled scales of units are from the balanced ones, which make"
                " the sum of squared weights least.",
            )
        )
    weights = _marginals(trace)
    if weights:
        pictures.append(
            picture(
                plot_marginals(weights),
                "Densities of some weights as sampled and canonical.",
                "The first weight of each site: as sampled it is a mixture over orders and scales"
                " of units, canonical it is that of one representative.",
            )
        )
    return pictures


def _masses(trace: xr.DataTree) -> tuple[Array, Array] | None:
    if "symmetry" not in trace.children:
        return None
    group = trace["symmetry"].to_dataset()
    if "mass_before" not in group or "mass_after" not in group:
        return None
    before, after = (
        group[name].transpose("chain", "draw").to_numpy().astype(np.float64)
        for name in ("mass_before", "mass_after")
    )
    fine = np.isfinite(before) & np.isfinite(after) & (after > 0)
    return (before, after) if fine.any() and np.ptp(before[fine] / after[fine]) > 1e-9 else None


def _marginals(trace: xr.DataTree) -> dict[str, tuple[Array, Array]]:
    if not {"posterior", "canonical_posterior"} <= set(trace.children):
        return {}
    raw, canonical = (trace[name].to_dataset() for name in ("posterior", "canonical_posterior"))
    wide = [str(name) for name in raw.data_vars if raw[name].ndim > 3 and name in canonical]
    found = {}
    for name in wide[:_ROWS]:
        both = [_first(group, name) for group in (raw, canonical)]
        if all(len(values) > 2 and np.ptp(values) > 0 for values in both):
            label = f"{name}[{', '.join('0' for _ in raw[name].dims[2:])}]"
            found[label] = (both[0], both[1])
    return found


def _first(group: xr.Dataset, name: str) -> Array:
    (_, _, values), *_ = gather(group, {name: np.zeros(1, np.int64)})
    flat = values.reshape(-1).astype(np.float64)
    flat = flat[np.isfinite(flat)]
    return flat[:: max(1, len(flat) // _DRAWS)]
