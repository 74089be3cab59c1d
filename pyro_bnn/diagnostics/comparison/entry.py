"""One run's row of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.comparison.columns import COLUMNS
from pyro_bnn.diagnostics.comparison.resampling import (
    Interval,
    detection_intervals,
    detector,
    function_intervals,
    resampled_interval,
    score_intervals,
)
from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.diagnostics.finer import member_numbers
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.loo import loo
from pyro_bnn.diagnostics.ood import out_of_distribution
from pyro_bnn.diagnostics.prediction import Prediction, other_labels, posterior_prediction
from pyro_bnn.diagnostics.quality import posterior_quality
from pyro_bnn.diagnostics.quality.mmd import FEWEST
from pyro_bnn.diagnostics.quality.posterior import WeightSpace
from pyro_bnn.diagnostics.sampler import sampler
from pyro_bnn.errors import UserError
from pyro_bnn.tasks import Map

Array = NDArray[np.float64]

_SCALARS = 500
_RENAMED = {"mutual_information": "idmi"}


@dataclass(frozen=True)
class Entry:
    """What a table says of one run.

    Attributes
    ----------
    name
        Of the run.
    values
        Column to number or text; columns that cannot be filled are missing.
    intervals
        Column to an interval of probability 0.95, where there is one.
    log_predictive
        Log predictive density of each test input, shape ``(test,)``; None if unknown.
    notes
        What could not be computed, in sentences.
    """

    name: str
    values: Mapping[str, float | int | str]
    intervals: Mapping[str, Interval]
    log_predictive: Array | None
    notes: tuple[str, ...] = ()


def entry(
    name: str,
    trace: xr.DataTree,
    reference: xr.DataTree | None,
    resamples: int,
    seed: int,
    mapped: Map = map,
) -> Entry:
    """Compute the row of one run.

    Parameters
    ----------
    name
        Of the run.
    trace
        Its trace.
    reference
        The trace that MMD, agreement and total variation are measured to; None for none.
    resamples
        Bootstrap samples behind each interval.
    seed
        Of the bootstrap and of thinning.
    mapped
        Computes the tasks of the distance to the reference.
    """
    rng = np.random.default_rng(seed)
    found = sampler(trace)
    members = member_numbers(trace, found.chains)
    values: dict[str, float | int | str] = {
        "method": str(trace.attrs.get("method", "")),
        "modes": len(np.unique(members)) or found.chains,
        "draws": found.chains * found.draws,
    }
    intervals: dict[str, Interval] = {}
    notes: list[str] = []
    for key, cost in (("seconds", found.seconds), ("gradients", found.gradients)):
        if not math.isnan(cost):
            values[key] = cost
    prediction = posterior_prediction(trace)
    if prediction is None:
        notes.append(f"{name}: the trace holds no predictions.")
    else:
        _predictive(trace, prediction, resamples, rng, values, intervals)
        notes += [f"{name}: {words}" for words in (prediction.problem, prediction.remark) if words]
    _convergence(trace, resamples, rng, values, intervals)
    left_out = loo(trace)
    if left_out is not None:
        mean, half = (x / left_out.rows for x in (left_out.elpd, 1.96 * left_out.error))
        values["loo"], intervals["loo"] = mean, (mean - half, mean + half)
        if left_out.unreliable:
            notes.append(
                f"{name}: PSIS-LOO is unreliable at {left_out.unreliable:,} of {left_out.rows:,}"
                f" training rows (Pareto k above {left_out.limit:.2f})."
            )
    if reference is not None:
        notes += _quality(
            name, trace, prediction, reference, resamples, seed, mapped, values, intervals
        )
    return Entry(
        name,
        values,
        intervals,
        None if prediction is None else prediction.log_predictive,
        tuple(notes),
    )


def unscored(one: Entry) -> Entry:
    """Leave out of a row what depends on the test split: scores, detection, agreement.

    Parameters
    ----------
    one
        The row.
    """
    scores = {c.key for c in COLUMNS if c.group in {"predictions", "elsewhere"} and c.key != "loo"}
    scores |= {"agreement", "total_variation"}
    return replace(
        one,
        values={key: value for key, value in one.values.items() if key not in scores},
        intervals={key: ends for key, ends in one.intervals.items() if key not in scores},
        log_predictive=None,
    )


def _predictive(
    trace: xr.DataTree,
    prediction: Prediction,
    resamples: int,
    rng: np.random.Generator,
    values: dict[str, float | int | str],
    intervals: dict[str, Interval],
) -> None:
    for key, score in prediction.scores().items():
        values[_RENAMED.get(key, key)] = score
    for key, ends in score_intervals(prediction, resamples, rng).items():
        intervals[_RENAMED.get(key, key)] = ends
    splits = out_of_distribution(trace, prediction)
    if not splits:
        return
    # Several splits count alike: the means over splits, of their intervals' ends too.
    scored = [(split, detector(split)) for split in splits.values()]
    found = [split.detection[score] for split, score in scored if score is not None]
    for key in ("aupr", "fpr95"):
        if found:
            values[key] = float(np.mean([getattr(one, key) for one in found]))
    information = [
        split.outside["mutual_information"].mean()
        for split, _ in scored
        if "mutual_information" in split.outside
    ]
    if information:
        values["oodmi"] = float(np.mean(information))
    each = [detection_intervals(split, resamples, rng) for split in splits.values()]
    for key in each[0]:
        low, high = np.mean([one[key] for one in each if key in one], axis=0)
        intervals[key] = float(low), float(high)


def _convergence(
    trace: xr.DataTree,
    resamples: int,
    rng: np.random.Generator,
    values: dict[str, float | int | str],
    intervals: dict[str, Interval],
) -> None:
    result = convergence(trace, "function", _SCALARS)
    if result is None:
        return
    for key, reduce, numbers in (
        ("rhat", np.max, result.rhat),
        ("ess", np.median, result.ess_bulk),
    ):
        known = numbers[~np.isnan(numbers)]
        if len(known):
            values[key] = float(reduce(known))
        if len(known) > 1 and np.isfinite(known).all() and resamples:
            intervals[key] = resampled_interval(known, reduce, resamples, rng)


def _quality(
    name: str,
    trace: xr.DataTree,
    prediction: Prediction | None,
    reference: xr.DataTree,
    resamples: int,
    seed: int,
    mapped: Map,
    values: dict[str, float | int | str],
    intervals: dict[str, Interval],
) -> list[str]:
    try:
        found = posterior_quality(
            trace,
            reference,
            resamples=resamples,
            permutations=0,
            seed=seed,
            by_layer=False,
            mapped=mapped,
        )
    except UserError as error:
        return [f"{name}: no distance to the reference: {error}"]
    spaces: tuple[tuple[str, WeightSpace], ...] = (("mmd", "weight"), ("ns", "canonical"))
    for key, space in spaces:
        estimate = found.whole(space)
        if estimate is not None:
            values[key], intervals[key] = estimate.value, estimate.interval
    for key, share in (
        ("agreement", found.agreement),
        ("total_variation", found.total_variation),
    ):
        if share is not None:
            values[key] = share
    if found.agreement is not None and prediction is not None and resamples:
        intervals |= function_intervals(prediction, reference, resamples, seed)
    notes = []
    if other_labels(trace, reference):
        notes.append(
            f"{name} and the reference were judged on different test splits: the agreement and the"
            " total variation between them are left out."
        )
    if found.samples < FEWEST:
        notes.append(
            f"{name}: its distances to the reference are of {found.samples} draws of each, as many"
            " as are independent: too few for an interval."
        )
    null = found.whole("null")
    if null is not None:
        low, high = (number(end) for end in null.interval)
        ends = "" if math.isnan(null.interval[0]) else f" ({low} to {high})"
        notes.append(
            f"{name}: control of NS: draws of the prior, aligned as those of the run and of the"
            f" reference were, have {number(null.value)}{ends}; what differs from 0 comes"
            " from the alignment alone."
        )
    return notes
