"""The section on convergence: R-hat and ESS in three spaces, and the worst scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.blocks import gather
from pyro_bnn.diagnostics.convergence import Convergence, Space
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import ABSENT, number
from pyro_bnn.diagnostics.layers import MAX_ROWS, Part, by_layer, by_site
from pyro_bnn.diagnostics.report.pieces import Picture, over, picture, share, stat, whole

_WORST = 4
_TRACE_POINTS = 500
_SPACES = {
    "weight": "Weights, as sampled",
    "canonical": "Canonical weights",
    "function": "Functions",
    "null": "Prior draws, canonical (null control)",
}


def space_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out R-hat and ESS of each space."""
    return [
        {
            "name": _SPACES[space],
            "scalars": f"{len(result.labels):,}"
            + (f" of {result.total:,}" if result.is_subset else ""),
            "rhat_median": number(over(np.median, result.rhat), fixed=True),
            "rhat_max": number(over(np.max, result.rhat), fixed=True),
            "below": share(result.rhat),
            "ess_median": whole(over(np.median, result.ess_bulk)),
            "ess_min": whole(over(np.min, result.ess_bulk)),
            "tail_median": whole(over(np.median, result.ess_tail)),
            "mcse": number(over(np.max, result.relative_mcse)),
        }
        for space, result in _with_control(found).items()
    ]


def _with_control(found: Diagnosis) -> dict[Space, Convergence]:
    """Put the null control after the canonical weights, where there is one."""
    shown: dict[Space, Convergence] = {}
    for space, result in found.convergence.items():
        shown[space] = result
        if space == "canonical" and found.null is not None:
            shown["null"] = found.null
    return shown


def layer_rows(found: Diagnosis) -> list[dict[str, Any]]:
    """Lay out R-hat, ESS and MCSE of each site, or of each layer of networks of many sites."""
    both: tuple[Space, ...] = ("weight", "canonical")
    spaces = [space for space in both if space in found.convergence]
    results = [found.convergence[space] for space in spaces]
    split = by_layer if any(len(by_site(one)) > MAX_ROWS for one in results) else by_site
    columns = [{part.name: part for part in split(one)} for one in results]
    names = dict.fromkeys(name for column in columns for name in column)
    if len(names) < 2:
        return []
    rows: list[dict[str, Any]] = [
        {"name": name, "cells": [cell for column in columns for cell in _cells(column.get(name))]}
        for name in names
    ]
    if found.null is not None:
        control = {part.name: part for part in split(found.null)}
        for row in rows:
            row["cells"].append(_cells(control.get(row["name"]))[0])
    return rows


def _cells(part: Part | None) -> tuple[str, str, str]:
    """Write R-hat, the least ESS and the largest MCSE of a site."""
    if part is None:
        return ABSENT, ABSENT, ABSENT
    low, error = over(np.min, part.ess_bulk), over(np.max, part.relative_mcse)
    return _median_and_max(part.rhat), whole(low), number(error)


def finer_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out R-hat within chains, over members and of random projections."""
    return [
        {
            "name": _SPACES[space],
            "scalars": f"{result.scalars:,}",
            "within": _median_and_max(result.chainwise),
            "nested": _median_and_max(result.nested),
            "projected": _median_and_max(result.projected),
        }
        for space, result in found.finer.items()
        if any(np.isfinite(r).any() for r in (result.chainwise, result.nested, result.projected))
    ]


def _median_and_max(rhat: NDArray[np.float64]) -> str:
    if not np.isfinite(rhat).any():
        return ABSENT
    return " / ".join(number(over(f, rhat), fixed=True) for f in (np.median, np.max))


def space_pictures(found: Diagnosis) -> list[Picture]:
    """Draw the distributions of R-hat and ESS."""
    from pyro_bnn.diagnostics.plots.ess import plot_ess
    from pyro_bnn.diagnostics.plots.rhat import plot_rhat, plot_rhat_overlaid

    results = _with_control(found)
    rhat: dict[str, NDArray[np.float64]] = {space: one.rhat for space, one in results.items()}
    ess: dict[str, NDArray[np.float64]] = {space: one.ess_bulk for space, one in results.items()}
    pictures = []
    if any(np.isfinite(values).any() for values in rhat.values()):
        pictures.append(
            picture(
                plot_rhat(rhat),
                "Histograms of R-hat in each space on one logarithmic axis.",
                "R-hat: the further right, the more the chains disagree.",
            )
        )
        pictures.append(
            picture(
                plot_rhat_overlaid(rhat),
                "Share of scalars above each value of R-hat, a line a space.",
                "R-hat in the three spaces, overlaid: the share of scalars above each value.",
            )
        )
    if any(np.isfinite(values).any() for values in ess.values()):
        pictures.append(
            picture(
                plot_ess(ess),
                "Histograms of bulk effective sample size in each space on one logarithmic axis.",
                "Effective sample size: the further right, the more the draws are worth.",
            )
        )
    return pictures


def worst_scalars(trace: xr.DataTree, found: Diagnosis) -> dict[str, Any] | None:
    """Picture the scalars of highest R-hat, canonical where there are any."""
    from pyro_bnn.diagnostics.plots.facets import scalar_tree
    from pyro_bnn.diagnostics.plots.rank import plot_ranks
    from pyro_bnn.diagnostics.plots.trace import plot_traces

    result = found.convergence.get("canonical") or found.convergence.get("weight")
    if result is None or not (worst := result.worst(_WORST)):
        return None
    group = "canonical_posterior" if result.space == "canonical" else "posterior"
    draws = _draws(trace[group].to_dataset(), result, worst)
    diverging = _diverging(trace, draws.shape)
    step = max(1, draws.shape[2] // _TRACE_POINTS)
    labels = [result.labels[i] for i in worst]
    tree = scalar_tree(
        labels, draws[:, :, ::step], None if diverging is None else diverging[:, ::step]
    )
    titles = [
        f"{label}   R-hat {number(float(result.rhat[i]), fixed=True)}"
        for label, i in zip(labels, worst, strict=True)
    ]
    pictures = [
        picture(
            plot_traces(tree, titles),
            "Draws of the worst scalars, a line a chain.",
            "Traces: chains that mix lie on top of each other."
            + ("" if diverging is None or not diverging.any() else " Ticks: divergences.")
            + (f" Every {step}th draw is shown." if step > 1 else ""),
        )
    ]
    if result.chains > 1:
        pictures.append(
            picture(
                plot_ranks(tree, titles),
                "Difference of each chain's rank distribution from uniform.",
                "Ranks: how far each chain's rank distribution is from uniform. Chains that agree"
                " stay inside the grey 99 % band.",
            )
        )
    rows = [
        (
            result.labels[i],
            number(float(result.rhat[i]), fixed=True),
            whole(float(result.ess_bulk[i])),
            whole(float(result.ess_tail[i])),
        )
        for i in result.worst(8)
    ]
    name = "canonical weights" if result.space == "canonical" else "weights"
    return {"name": name, "rows": rows, "pictures": pictures, "subset": result.is_subset}


def _draws(group: xr.Dataset, result: Convergence, worst: list[int]) -> NDArray[Any]:
    wanted = [_position(group, result.labels[i]) for i in worst]
    values: dict[tuple[str, int], NDArray[Any]] = {}
    picks: dict[str, list[int]] = {}
    for name, index in wanted:
        picks.setdefault(name, []).append(index)
    arrays = {name: np.asarray(index, dtype=np.int64) for name, index in picks.items()}
    for name, part, block in gather(group, arrays):
        for row, index in enumerate(part):
            values[name, int(index)] = block[row]
    return np.stack([values[key] for key in wanted])


def _position(group: xr.Dataset, label: str) -> tuple[str, int]:
    if label in group:
        return label, 0
    name, _, inside = label.removesuffix("]").rpartition("[")
    shape = group[name].transpose("chain", "draw", ...).shape[2:]
    return name, int(np.ravel_multi_index([int(i) for i in inside.split(", ")], shape))


def _diverging(trace: xr.DataTree, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    values = stat(trace, "diverging")
    return None if values is None or values.shape != shape[1:] else values > 0
