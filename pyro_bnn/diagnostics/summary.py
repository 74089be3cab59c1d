"""The flat summary of a run: one number a key, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_bnn.diagnostics.diversity import correlation
from pyro_bnn.diagnostics.keys import SUMMARY_KEYS
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.dead_chains import dead_chains

Value = float | int | str


def summarize(trace: xr.DataTree, diagnosis: Diagnosis | None = None) -> dict[str, Value]:
    """Summarise a trace in flat keys.

    Parameters
    ----------
    trace
        A trace; any of its groups may be missing.
    diagnosis
        What `diagnose` returned for this trace, so as not to compute it again.

    Returns
    -------
    dict
        Keys of `SUMMARY_KEYS` in their order. A key whose group the trace lacks is left out; a
        number that is not defined (R-hat of one chain) is NaN.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 100, 3))
    >>> posterior = xr.Dataset({"w": (("chain", "draw", "x0"), draws)})
    >>> summary = summarize(xr.DataTree.from_dict({"posterior": posterior}))
    >>> summary["weights"], summary["chains"], summary["rhat.weight.max"] < 1.05
    (3, 4, True)
    """
    found = diagnose(trace) if diagnosis is None else diagnosis
    values: dict[str, Value] = {}
    if "model" in trace.attrs:
        values["model"] = str(trace.attrs["model"])
    if "batching" in trace.attrs:
        values["batching"] = str(trace.attrs["batching"])
    if "dead_chains" in trace.attrs:
        values["dead_chains"] = len(dead_chains(trace))
    values |= _size(found) | _predictions(found) | _comparisons(found)
    values |= _convergence(found) | _cost(found)
    return {key: values[key] for key in SUMMARY_KEYS if key in values}


def write_summary(path: str | Path, summary: Mapping[str, Value]) -> Path:
    """Write a summary as JSON, whole or not at all; NaN and infinity become null.

    Parameters
    ----------
    path
        The file.
    summary
        What `summarize` returned.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in summary.items()
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _size(found: Diagnosis) -> dict[str, Value]:
    sampler = found.sampler
    return {"weights": sampler.weights, "chains": sampler.chains, "draws": sampler.draws}


def _predictions(found: Diagnosis) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, prediction in (("test", found.posterior), ("point", found.point)):
        if prediction is None:
            continue
        values["likelihood"] = prediction.likelihood
        values |= {f"{name}.{key}": score for key, score in prediction.scores().items()}
        for array in (prediction.log_predictive, prediction.mean):
            if array is not None:
                values["test.inputs"] = len(array)
    if found.ood:
        # Entropy for classes, spread for numbers; the mean over splits.
        for key in ("auroc", "aupr", "fpr95"):
            values[f"ood.{key}"] = _mean(
                getattr(one.detection.get("entropy") or one.detection["spread"], key)
                for one in found.ood.values()
                if one.detection
            )
        known = [one.outside.get("mutual_information") for one in found.ood.values()]
        information = [one for one in known if one is not None]
        if information:
            values["ood.mutual_information"] = float(np.mean(np.concatenate(information)))
    for prefix, pairs in (("", found.diversity), ("ood.", found.diversity_ood)):
        if pairs is not None:
            for key, numbers in pairs.distances.items():
                values[f"diversity.{prefix}{key}"] = float(np.mean(numbers))
    if found.diversity is not None and found.diversity_ood is not None:
        values["diversity.correlation"] = correlation(found.diversity, found.diversity_ood)
    if found.posterior is not None:
        values["nan.predictions"] = found.posterior.left_out
    return values


def _comparisons(found: Diagnosis) -> dict[str, Value]:
    """Numbers of corrupted inputs, left-out rows, importance weights and stacked chains."""
    values: dict[str, Value] = {}
    if found.robustness is not None:
        for key, score in found.robustness.average.items():
            if f"corrupted.{key}" in SUMMARY_KEYS:
                values[f"corrupted.{key}"] = score
    if found.loo is not None:
        rows = found.loo.rows
        values |= {
            "loo.elpd": found.loo.elpd / rows,
            "loo.se": found.loo.error / rows,
            "loo.parameters": found.loo.parameters,
            "loo.rows": rows,
            "loo.unreliable": found.loo.unreliable,
        }
    if found.importance is not None:
        values["psis_k.median"] = _over(np.median, found.importance.pareto_k)
        values["psis_k.max"] = _over(np.max, found.importance.pareto_k)
    if found.stacking is not None:
        values["stacking.effective"] = found.stacking.effective
        values["stacking.nll"] = found.stacking.nll_stacked
    return values


def _convergence(found: Diagnosis) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for space, result in found.convergence.items():
        values[f"rhat.{space}.median"] = _over(np.median, result.rhat)
        values[f"rhat.{space}.max"] = _over(np.max, result.rhat)
        for name, ess in (("ess", result.ess_bulk), ("ess_tail", result.ess_tail)):
            values[f"{name}.{space}.median"] = _over(np.median, ess)
            values[f"{name}.{space}.min"] = _over(np.min, ess)
        values[f"mcse.{space}.median"] = _over(np.median, result.relative_mcse)
        values[f"mcse.{space}.max"] = _over(np.max, result.relative_mcse)
        values[f"scalars.{space}"] = len(result.labels)
        values[f"constant.{space}"] = len(result.constant)
        values[f"nonfinite.{space}"] = len(result.nonfinite)
    for space, finer in found.finer.items():
        for rule, rhat in (("chainwise", finer.chainwise), ("nested", finer.nested)):
            if len(rhat):
                values[f"rhat.{space}.{rule}.median"] = _over(np.median, rhat)
                values[f"rhat.{space}.{rule}.max"] = _over(np.max, rhat)
    if found.null is not None:
        values["rhat.null.median"] = _over(np.median, found.null.rhat)
        values["rhat.null.max"] = _over(np.max, found.null.rhat)
    return values


def _cost(found: Diagnosis) -> dict[str, Value]:
    sampler = found.sampler
    values: dict[str, Value] = {"nan": sampler.nonfinite}
    if sampler.divergences is not None:
        values["divergences"] = int(sampler.divergences.sum())
    if sampler.acceptance is not None:
        values["acceptance"] = _over(np.mean, sampler.acceptance)
    if sampler.bfmi is not None:
        values["bfmi.min"] = _over(np.min, sampler.bfmi)
    known = {
        "step_size": sampler.step_size,
        "steps": sampler.steps,
        "seconds": sampler.seconds,
        "seconds.warmup": sampler.seconds_warmup,
        "seconds.sampling": sampler.seconds_sampling,
    }
    whole = {"tree_depth.max": sampler.tree_depth, "gradients": sampler.gradients}
    values |= {key: value for key, value in known.items() if not math.isnan(value)}
    values |= {key: int(value) for key, value in whole.items() if math.isfinite(value)}
    if found.orbits is not None and math.isfinite(found.orbits.log_order):
        values["symmetry.log_order"] = found.orbits.log_order
    if found.exchangeability:
        tests = [test.p_value for test in found.exchangeability.values()]
        values["exchangeability.p"] = min(1.0, len(tests) * min(tests))
    stated = [one for one in found.statements if not math.isnan(one.p_value)]
    if stated:
        values["identities.p"] = min(1.0, len(stated) * min(one.p_value for one in stated))
        values["identities.z"] = max(abs(one.worst) for one in stated)
    function = found.convergence.get("function")
    if function is not None:
        ess = _over(np.median, function.ess_bulk)
        if sampler.seconds > 0:
            values["ess.function.per_second"] = ess / sampler.seconds
        if sampler.gradients > 0:
            values["ess.function.per_kilogradient"] = 1000 * ess / sampler.gradients
    return values


def _mean(numbers: Iterable[float]) -> float:
    listed = list(numbers)
    return float(np.mean(listed)) if listed else math.nan


def _over(reduce: Callable[[Any], Any], numbers: NDArray[np.float64]) -> float:
    defined = numbers[~np.isnan(numbers)]
    return float(reduce(defined)) if len(defined) else math.nan
