"""Compare the draws of a trace with those of a reference, layer by layer, raw and canonical.

In the study of Laurent, Aldea and Franchi (2024) the reference is a thousand independently trained
networks, the MMD of raw weights is the column "MMD" and that of canonical weights the column "NS".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr

from pyro_bnn.diagnostics.draws import Draws, chosen, effective_draws, usable_draws
from pyro_bnn.diagnostics.prediction import posterior_prediction
from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.diagnostics.quality.function_space import agreement, total_variation
from pyro_bnn.diagnostics.quality.mmd import PERMUTATIONS, RESAMPLES, Mmd, mmd
from pyro_bnn.diagnostics.quality.wasserstein import SlicedWasserstein
from pyro_bnn.errors import UserError

SAMPLES = 500
WHOLE = "all"

WeightSpace = Literal["weight", "canonical"]

_GROUPS: dict[WeightSpace, str] = {"weight": "posterior", "canonical": "canonical_posterior"}
_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class WeightDistance:
    """Distance of two samples in one space over one layer.

    Attributes
    ----------
    space
        ``"weight"`` or ``"canonical"``.
    layer
        What precedes the last dot of its sites' names, or ``"all"``.
    mmd
        Squared MMD.
    wasserstein
        Sliced Wasserstein distance.
    """

    space: WeightSpace
    layer: str
    mmd: Mmd
    wasserstein: float


@dataclass(frozen=True)
class PosteriorQuality:
    """Distances of a trace to a reference.

    Attributes
    ----------
    weights
        One for each space and layer; the whole network is the layer ``"all"``.
    samples
        Draws of each of the two that were compared.
    agreement, total_variation
        Of the posterior means of the class probabilities on the test split; None where one of
        the traces has none.
    """

    weights: tuple[WeightDistance, ...]
    samples: int
    agreement: float | None
    total_variation: float | None

    def whole(self, space: WeightSpace) -> Mmd | None:
        """Return the squared MMD of the whole network; None if the space was not compared."""
        return next((w.mmd for w in self.weights if (w.space, w.layer) == (space, WHOLE)), None)


def posterior_quality(
    trace: xr.DataTree,
    reference: xr.DataTree,
    samples: int = SAMPLES,
    permutations: int = PERMUTATIONS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
    by_layer: bool = True,
) -> PosteriorQuality:
    """Compare a trace with a reference of the same model.

    Both are thinned to one size: to `samples` draws, or to the effective number of draws of the
    smaller (by the autocorrelation within its chains). Draws that are not finite are left out.
    Where the chains of a trace sit in different modes, its draws are not independent, and a small
    p-value says that these chains differ from the reference, not that others would.

    Parameters
    ----------
    trace, reference
        Traces with the group ``posterior``; with ``canonical_posterior`` and ``predictions``
        where those are to be compared.
    samples
        Draws of each at most.
    permutations, resamples
        Of the p-value and of the interval; 0 for none.
    seed
        Of permutations, resamples and directions.
    device
        Where the distances are computed.
    by_layer
        Whether to judge each layer too, which costs as much again for each.

    Returns
    -------
    PosteriorQuality
        In memory: the pairwise distances of one layer and of the whole, and a block of weights.

    Raises
    ------
    UserError
        If the traces are not of one model, or one has fewer than two finite draws.
    """
    first = _posterior(trace, "trace")
    second = _posterior(reference, "reference")
    refuse_other_model(first, second)
    picks = [usable_draws(group) for group in (first, second)]
    effective = [effective_draws(group) for group in (first, second)]
    size = min(samples, *(len(pick) for pick in picks), *effective)
    if size < 2:
        raise UserError("a trace has fewer than two finite draws: there is nothing to compare.")
    here, there = (pick.spaced(size) for pick in picks)
    weights: list[WeightDistance] = []
    for space, name in _GROUPS.items():
        if all(name in one.children and one[name].data_vars for one in (trace, reference)):
            groups = trace[name].to_dataset(), reference[name].to_dataset()
            weights += _space(
                space,
                groups,
                (here, there),
                (permutations, resamples),
                seed,
                torch.device(device),
                by_layer,
            )
    return PosteriorQuality(tuple(weights), size, *_functions(trace, reference))


def refuse_other_model(first: xr.Dataset, second: xr.Dataset) -> None:
    """Raise a `UserError` that says in which sites or shapes two posteriors differ."""
    only = sorted(map(str, set(first.data_vars) ^ set(second.data_vars)))
    if only:
        raise UserError(
            f"the traces are of different models: only one of them has {', '.join(only[:3])}."
        )
    for name in map(str, first.data_vars):
        shapes = [one[name].transpose("chain", "draw", ...).shape[2:] for one in (first, second)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the traces are of different models: {name} has shape {shapes[0]} in one and "
                f"{shapes[1]} in the other."
            )


def layers(names: list[str]) -> dict[str, list[str]]:
    """Group sites by layer: ``0.weight`` and ``0.bias`` are of the layer ``0``."""
    result: dict[str, list[str]] = {}
    for name in names:
        result.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return result


def _posterior(trace: xr.DataTree, which: str) -> xr.Dataset:
    if "posterior" not in trace.children or not trace["posterior"].data_vars:
        raise UserError(f"the {which} has no group 'posterior': there are no weights to compare.")
    return trace["posterior"].to_dataset()


def _space(
    space: WeightSpace,
    groups: tuple[xr.Dataset, xr.Dataset],
    picks: tuple[Draws, Draws],
    counts: tuple[int, int],
    seed: int,
    device: torch.device,
    by_layer: bool,
) -> list[WeightDistance]:
    generators = [torch.Generator(device).manual_seed(seed + k) for k in range(2)]
    results = []
    whole: Distances | None = None
    whole_slices = SlicedWasserstein(generator=generators[0])
    found = layers([str(name) for name in groups[0].data_vars])
    for layer, names in found.items():
        distances: Distances | None = None
        slices = SlicedWasserstein(generator=generators[0])
        for name in names:
            others = groups[1][name].transpose(*_inner_as(groups[0][name], groups[1][name]))
            parts = zip(
                chosen(groups[0][name].transpose("chain", "draw", ...), picks[0], _BLOCK_BYTES),
                chosen(others, picks[1], _BLOCK_BYTES),
                strict=True,
            )
            for values in parts:
                x, y = (torch.from_numpy(np.asarray(v, np.float64)).to(device) for v in values)
                new = Distances.of(x, y)
                distances = new if distances is None else distances + new
                slices.add(x, y)
                whole_slices.add(x, y)
        if distances is None:
            continue
        whole = distances if whole is None else whole + distances
        if by_layer and len(found) > 1:
            estimate = mmd(distances, *counts, generator=generators[1])
            results.append(WeightDistance(space, layer, estimate, slices.distance()))
    if whole is not None:
        estimate = mmd(whole, *counts, generator=generators[1])
        results.append(WeightDistance(space, WHOLE, estimate, whole_slices.distance()))
    return results


def _inner_as(like: xr.DataArray, other: xr.DataArray) -> tuple[str, ...]:
    """Order the dimensions of `other` as those of `like`, where they have the same names."""
    inner = [str(dim) for dim in like.dims if dim not in ("chain", "draw")]
    theirs = [str(dim) for dim in other.dims if dim not in ("chain", "draw")]
    return ("chain", "draw", *(inner if set(inner) == set(theirs) else theirs))


def _functions(trace: xr.DataTree, reference: xr.DataTree) -> tuple[float | None, float | None]:
    ours, theirs = (
        found.mean if found is not None and found.is_classification else None
        for found in map(posterior_prediction, (trace, reference))
    )
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None, None
    return agreement(ours, theirs), total_variation(ours, theirs)
