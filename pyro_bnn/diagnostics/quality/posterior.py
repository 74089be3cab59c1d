"""Compare the draws of a trace with those of a reference, layer by layer, raw and canonical.

In the study of Laurent, Aldea and Franchi (2024) the reference is a thousand independently trained
networks, the MMD of raw weights is the column "MMD" and that of canonical weights the column "NS".
"""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import dataclass
from typing import Literal

import torch
import xarray as xr

from pyro_bnn.diagnostics.draws import Draws, effective_draws, usable_draws
from pyro_bnn.diagnostics.prediction import other_labels, posterior_prediction
from pyro_bnn.diagnostics.quality.function_space import agreement, total_variation
from pyro_bnn.diagnostics.quality.gap import Gap, Measure, pieces
from pyro_bnn.diagnostics.quality.mmd import PERMUTATIONS, RESAMPLES, Mmd, mmd
from pyro_bnn.errors import UserError
from pyro_bnn.tasks import Map

SAMPLES = 500
WHOLE = "all"

WeightSpace = Literal["weight", "canonical", "null"]

_GROUPS: dict[WeightSpace, str] = {
    "weight": "posterior",
    "canonical": "canonical_posterior",
    "null": "canonical_prior",
}


@dataclass(frozen=True)
class WeightDistance:
    """Distance of two samples in one space over one layer.

    Attributes
    ----------
    space
        ``"weight"``, ``"canonical"``, or ``"null"``: draws of the prior, aligned as the draws of
        each trace were, the control of ``"canonical"``.
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
        the traces has none, or the two have other test labels.
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
    mapped: Map = map,
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
        where those are to be compared, with ``canonical_prior`` for the control of the former.
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
    mapped
        ``mapped(function, tasks)``, as `map`, for tasks of 131,072 weights: that of a
        `pyro_bnn.infer.distributed.Scheduler` computes them on a cluster, which sees the files of
        the traces. The result is the same, bit for bit.

    Returns
    -------
    PosteriorQuality
        In memory: the pairwise distances of one layer and of the whole, and in each process those
        of a task and a block of weights.

    Raises
    ------
    UserError
        If the traces are not of one model, or one has fewer than two finite draws.
    """
    first = _posterior(trace, "trace")
    second = _posterior(reference, "reference")
    refuse_other_model(first, second)
    usable = [usable_draws(group) for group in (first, second)]
    effective = [effective_draws(group) for group in (first, second)]
    size = min(samples, *(len(pick) for pick in usable), *effective)
    if size < 2:
        raise UserError("a trace has fewer than two finite draws: there is nothing to compare.")
    here, there = (pick.spaced(size) for pick in usable)
    weights: list[WeightDistance] = []
    for space, name in _GROUPS.items():
        if all(name in one.children and one[name].data_vars for one in (trace, reference)):
            groups = trace[name].to_dataset(), reference[name].to_dataset()
            picks = (here, there)
            if space == "null":
                groups, picks = _apart(groups, size)
            if len(picks[0]) < 2:
                continue
            weights += _space(
                space,
                groups,
                picks,
                (permutations, resamples),
                seed,
                torch.device(device),
                by_layer,
                mapped,
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


def _apart(
    groups: tuple[xr.Dataset, xr.Dataset], size: int
) -> tuple[tuple[xr.Dataset, xr.Dataset], tuple[Draws, Draws]]:
    """Take every other draw here and the others there: all traces have the same of the prior."""
    dim = "draw" if min(group.sizes["draw"] for group in groups) > 1 else "chain"
    even, odd = (group.isel({dim: slice(i, None, 2)}) for i, group in enumerate(groups))
    first, second = usable_draws(even), usable_draws(odd)
    size = min(size, len(first), len(second))
    return (even, odd), (first.spaced(size), second.spaced(size))


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
    mapped: Map,
) -> list[WeightDistance]:
    generator = torch.Generator(device).manual_seed(seed + 1)
    sites = layers([str(name) for name in groups[0].data_vars])
    layer_of = {site: layer for layer, names in sites.items() for site in names}
    cut = list(pieces(*groups, list(layer_of)))
    measure = Measure(picks, (seed, list(_GROUPS).index(space)), device)
    whole: Gap | None = None
    results = []
    parts = zip(cut, mapped(measure, cut), strict=True)
    for layer, those in itertools.groupby(parts, lambda pair: layer_of[pair[0].site]):
        gap = functools.reduce(operator.add, (part for _, part in those))
        whole = gap if whole is None else whole + gap
        if by_layer and len(sites) > 1:
            results.append(_distance(space, layer, gap, counts, generator))
    if whole is not None:
        results.append(_distance(space, WHOLE, whole, counts, generator))
    return results


def _distance(
    space: WeightSpace, layer: str, gap: Gap, counts: tuple[int, int], generator: torch.Generator
) -> WeightDistance:
    estimate = mmd(gap.distances, *counts, generator=generator)
    return WeightDistance(space, layer, estimate, gap.projections.distance())


def _functions(trace: xr.DataTree, reference: xr.DataTree) -> tuple[float | None, float | None]:
    if other_labels(trace, reference):
        return None, None
    ours, theirs = (
        found.mean if found is not None and found.is_classification else None
        for found in map(posterior_prediction, (trace, reference))
    )
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None, None
    return agreement(ours, theirs), total_variation(ours, theirs)
