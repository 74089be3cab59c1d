"""Pictures of weights before and after the quotient."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.barrier import Line, mode_lines, null_rises
from pyro_bnn.diagnostics.blocks import gather
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_ROWS = 4
_DRAWS = 2_000

Array = NDArray[np.float64]


def quotient_pictures(trace: xr.DataTree) -> list[Picture]:
    """Draw the mass of the draws, and some weights' densities, before and after the quotient."""
    from pyro_bnn.diagnostics.plots.bivariate import plot_bivariate
    from pyro_bnn.diagnostics.plots.line import plot_lines
    from pyro_bnn.diagnostics.plots.marginals import plot_marginals
    from pyro_bnn.diagnostics.plots.mass import plot_mass
    from pyro_bnn.diagnostics.plots.pairs import plot_pairs

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
    joint = _joint(trace)
    if joint:
        pictures.append(
            picture(
                plot_bivariate(joint),
                "Joint densities of pairs of weights as sampled and canonical.",
                "Pairs of weights of neighbouring units: as sampled, the density is symmetric"
                " under exchange of the units if the sampler mixes; sorted, one half is left.",
            )
        )
    pairs = _few(trace)
    if pairs is not None:
        pictures.append(
            picture(
                plot_pairs(*pairs),
                "Scatter plots of every pair of four canonical weights, coloured by chain.",
                "Canonical weights of evenly spaced draws in pairs, a colour a chain: chains that"
                " agree cover each other.",
            )
        )
    lines = mode_lines(trace)
    if lines:
        pictures.append(
            picture(
                plot_lines(lines),
                "Loss and log density along the line between two chains.",
                "Along the line from the last draw of the first chain to that of the last: the"
                " barrier is how far the loss rises above the straight line between its ends."
                + _line_control(lines, null_rises(trace)),
            )
        )
    return pictures


def _line_control(lines: Mapping[str, Line], null: Mapping[str, Array]) -> str:
    """Say what the quotient does to the loss halfway, here and between draws of the prior."""
    if not {"weight", "canonical"} <= set(lines) or set(null) != set(lines):
        return ""
    ours = {space: line.rise for space, line in lines.items()}
    theirs = {space: float(np.median(rises)) for space, rises in null.items()}
    here, there = (
        f"{number(found['weight'])} as sampled and {number(found['canonical'])} canonical"
        for found in (ours, theirs)
    )
    return (
        f" Halfway, the loss is above the mean of the ends by {here}. Control: between draws of the"
        f" prior, put through the same quotient, by {there} (medians of {len(null['weight'])})."
    )


def _joint(trace: xr.DataTree) -> dict[tuple[str, str], tuple[Array, Array]]:
    """Take the first weights of the first two units of two sites."""
    if not {"posterior", "canonical_posterior"} <= set(trace.children):
        return {}
    raw, canonical = (trace[name].to_dataset() for name in ("posterior", "canonical_posterior"))
    found: dict[tuple[str, str], tuple[Array, Array]] = {}
    for name in (str(one) for one in raw.data_vars if one in canonical):
        sizes = raw[name].transpose("chain", "draw", ...).shape[2:]
        if len(found) == 2 or not sizes or sizes[0] < 2:
            continue
        second = math.prod(sizes[1:])
        both = [_columns(group, name, [0, second]) for group in (raw, canonical)]
        if all(len(v) > 9 and (np.ptp(v, axis=0) > 0).all() for v in both):
            rest = "".join(", 0" for _ in sizes[1:])
            found[f"{name}[0{rest}]", f"{name}[1{rest}]"] = (both[0], both[1])
    return found


def _columns(group: xr.Dataset, name: str, index: list[int]) -> Array:
    """Finite draws of some scalars of a site, ``(draw, scalar)``, at most 2,000."""
    parts = gather(group, {name: np.asarray(index, dtype=np.int64)})
    values = np.concatenate([part for _, _, part in parts])
    flat = values.reshape(len(index), -1).T.astype(np.float64)
    flat = flat[np.isfinite(flat).all(axis=1)]
    return flat[:: max(1, len(flat) // _DRAWS)]


def _few(trace: xr.DataTree) -> tuple[list[str], Array] | None:
    """Take four canonical weights, the first of as many sites as there are."""
    if "canonical_posterior" not in trace.children:
        return None
    group = trace["canonical_posterior"].to_dataset()
    if not group.data_vars or group.sizes["draw"] < 4:
        return None
    names, values = [], []
    for name, index in _first_scalars(group, 4):
        (_, _, block), *_ = gather(group, {name: np.array([index], dtype=np.int64)})
        shape = group[name].transpose("chain", "draw", ...).shape[2:]
        place = ", ".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
        names.append(f"{name}[{place}]" if place else name)
        values.append(block[0].astype(np.float64))
    stacked = np.stack(values)
    spans = [np.ptp(v[np.isfinite(v)]) if np.isfinite(v).any() else 0.0 for v in stacked]
    return (names, stacked) if len(names) > 1 and min(spans) > 0 else None


def _first_scalars(group: xr.Dataset, count: int) -> list[tuple[str, int]]:
    """Name the first scalar of each variable, then the second of each, and so on."""
    sizes = {
        str(name): math.prod(array.transpose("chain", "draw", ...).shape[2:])
        for name, array in group.data_vars.items()
    }
    listed = [
        (name, index) for index in range(count) for name, size in sizes.items() if index < size
    ]
    return listed[:count]


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
        both = [_columns(group, name, [0])[:, 0] for group in (raw, canonical)]
        if all(len(values) > 2 and np.ptp(values) > 0 for values in both):
            label = f"{name}[{', '.join('0' for _ in raw[name].dims[2:])}]"
            found[label] = (both[0], both[1])
    return found
