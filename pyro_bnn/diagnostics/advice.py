"""What to do next, in words: each sentence follows from a number that stands in the report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics.convergence import Space
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number, percent
from pyro_bnn.diagnostics.prediction import Prediction
from pyro_bnn.diagnostics.recipe import recipe_of
from pyro_bnn.diagnostics.verdict import ENOUGH, LOOSE, are_apart, convergence_level

__all__ = ["constant_prediction", "next_steps"]

# More draws than these, times those that there are, are not foretold from so few.
_FURTHEST = 20
_MANY_DIVERGENCES = 0.01
# A temperature that gains less of the negative log likelihood is not worth another run.
_GAIN = 0.1
_FEWEST_INPUTS = 20


def next_steps(trace: xr.DataTree, found: Diagnosis) -> list[str]:
    """Say what would make a run more trustworthy, the most pressing first.

    Parameters
    ----------
    trace
        The trace.
    found
        Its diagnosis.

    Returns
    -------
    list of str
        Sentences; one that says so where nothing calls for another run.
    """
    steps = []
    if not _has_guide(trace):
        steps += [*_divergences(trace, found), *_sampling(found)]
    if found.posterior is not None and not found.posterior.problem:
        steps += [*_against_constant(trace, found.posterior), *_calibration(found.posterior)]
    if not steps and found.convergence:
        steps.append(
            "Nothing here calls for another run. How another prior, network or method does on the "
            "same data: pyro-bnn compare."
        )
    return steps


def constant_prediction(trace: xr.DataTree, found: Diagnosis) -> str:
    """Say how well the test split is predicted without inputs; empty if it is not known."""
    if found.posterior is None or found.posterior.problem:
        return ""
    key, score = _constant(trace, found.posterior)
    if key == "accuracy":
        return (
            f"Always naming the commonest class of the training rows is right for {percent(score)}."
        )
    if key == "rmse":
        return f"Always predicting the mean of the training rows has an RMSE of {number(score)}."
    return ""


def _has_guide(trace: xr.DataTree) -> bool:
    """Whether chains are members of an ensemble, which are not meant to agree."""
    return "guide" in recipe_of(trace)


def _divergences(trace: xr.DataTree, found: Diagnosis) -> list[str]:
    sampler = found.sampler
    if sampler.divergences is None:
        return []
    share = sampler.divergences.sum() / max(1, sampler.chains * sampler.draws)
    if share < _MANY_DIVERGENCES:
        return []
    how = _smaller_steps(recipe_of(trace).get("kernel"))
    return [
        f"Take smaller steps{how}, since {percent(float(share))} of the transitions diverged, or a "
        "prior that leaves scales less room."
    ]


def _smaller_steps(kernel: Any) -> str:
    """Name the setting of a kernel that its step size follows; empty where none is known."""
    settings = kernel if isinstance(kernel, dict) else {}
    match settings.get("target_accept_prob"), settings.get("energy_variance"):
        case float(target), _:
            return f" (--set kernel.target_accept_prob={max(0.9, (1 + target) / 2):.3g})"
        case _, float(variance):
            return f" (--set kernel.energy_variance={variance / 4:.3g})"
    return ""


def _sampling(found: Diagnosis) -> list[str]:
    """Say how much longer to sample, or that it would not help."""
    spaces: tuple[Space, ...] = ("function", "weight")
    main = next((space for space in spaces if space in found.convergence), None)
    if main is None:
        return []
    result = found.convergence[main]
    level = convergence_level(result)
    if level == "unknown":
        return [
            "Run two chains or more, of four draws at least (--chains, --draws): without them "
            "nobody can tell whether they agree."
        ]
    ess = result.ess_bulk[~np.isnan(result.ess_bulk)]
    least = float(ess.min()) if len(ess) else math.nan
    if level != "poor":
        if math.isnan(least) or least >= ENOUGH:
            return []
        return [
            f"For quantiles and small probabilities take more draws, some "
            f"{_longer(result.draws, least):,} a chain (--draws): the least effective sample size "
            f"is {number(least)}, and {ENOUGH:.0f} are asked for."
        ]
    if not are_apart(result):
        return [
            f"Find out first why some draws of {result.nonfinite[0]} are not finite: longer chains "
            "do not mend it. A smaller step size or a tighter prior may, or a likelihood under "
            "which no observation is impossible."
        ]
    within = found.finer[main].chainwise if main in found.finer else np.empty(0)
    within = within[~np.isnan(within)]
    between = float(np.nanmedian(result.rhat))
    if len(within) and float(np.median(within)) <= LOOSE < between:
        return [
            "Run more chains (--chains) rather than longer ones: each chain has settled, but not "
            "where the others have, and more draws will not bring them together. Until then, "
            "averages are over these modes only."
        ]
    return [
        f"Sample longer: some {_longer(result.draws, least):,} draws a chain (--draws) after "
        "twice the warm-up (--warmup), going by the least effective sample size so far, "
        f"{number(least)}."
    ]


def _longer(draws: int, least: float) -> int:
    """Foretell how many draws reach the effective sample size asked for, in two digits."""
    factor = 2.0 if math.isnan(least) else min(max(ENOUGH / least, 2.0), float(_FURTHEST))
    wanted = draws * factor
    unit = 10 ** max(0, math.floor(math.log10(wanted)) - 1)
    return int(math.ceil(wanted / unit) * unit)


def _constant(trace: xr.DataTree, ours: Prediction) -> tuple[str, float]:
    """Score the best prediction that looks at no input: the commonest class, or the mean."""
    observed = trace["observed_data"].to_dataset() if "observed_data" in trace.children else {}
    if ours.y is None or "y" not in observed:
        return "", math.nan
    seen = np.asarray(observed["y"])
    if seen.ndim != 1 or not len(seen) or ours.y.ndim != 1:
        return "", math.nan
    if ours.is_classification:
        classes, counts = np.unique(seen, return_counts=True)
        return "accuracy", float(np.mean(ours.y == classes[counts.argmax()]))
    return "rmse", float(np.sqrt(np.mean((ours.y - seen.mean()) ** 2)))


def _against_constant(trace: xr.DataTree, ours: Prediction) -> list[str]:
    key, score = _constant(trace, ours)
    reached = ours.scores().get(key, math.nan)
    if key == "accuracy" and reached <= score < 1:
        return [
            "Do not read the accuracy by itself: it is no higher than that of always naming the "
            f"commonest class, {percent(score)}. Look at the negative log likelihood and at the "
            "features."
        ]
    if key == "rmse" and reached >= score:
        return [
            "Look at the features, the prior and the noise before anything else: the RMSE is no "
            f"lower than that of always predicting the mean, {number(score)}."
        ]
    return []


def _calibration(ours: Prediction) -> list[str]:
    """Say which way the prior or the noise should be changed, where scores show it clearly."""
    if ours.mean is None or ours.y is None or len(ours.y) < _FEWEST_INPUTS:
        return []
    if ours.is_classification:
        scaling = ours.temperature
        if scaling is None or not scaling.nll_after < (1 - _GAIN) * scaling.nll_before:
            return []
        if scaling.value < 1:
            return [
                "Try a wider prior (gain in the model script): the predictions are right more "
                "often than they are sure."
            ]
        return [
            "Try a narrower prior (gain in the model script): the predictions are sure more often "
            "than they are right."
        ]
    coverage = ours.scores().get("coverage90", math.nan)
    # Three standard errors of a share of 0.9.
    if not abs(coverage - 0.9) > 3 * math.sqrt(0.09 / len(ours.y)):
        return []
    return [
        f"Try another likelihood (heteroscedastic or student_t): 90 % intervals hold "
        f"{percent(coverage)} of the test targets."
    ]
