"""Bootstrap intervals of scores, over test inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.ood import OutOfDistribution, detect
from pyro_bnn.diagnostics.prediction import Prediction, posterior_prediction
from pyro_bnn.diagnostics.quality.function_space import agreement, total_variation

RESAMPLES = 200
LEVEL = 0.95
SCORE = "max_softmax"

Interval = tuple[float, float]


def score_intervals(
    prediction: Prediction, resamples: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Resample the test inputs and score each sample.

    Parameters
    ----------
    prediction
        Of the posterior.
    resamples
        Number of samples.
    rng
        Draws them.

    Returns
    -------
    dict
        Score, as `Prediction.scores` names it, to its percentile interval of probability 0.95.
        Calibration errors are biased upwards by resampling: their intervals may lie above them.
    """
    inputs = next(
        (len(a) for a in (prediction.log_predictive, prediction.mean) if a is not None), 0
    )
    samples = [
        resampled(prediction, rng.integers(inputs, size=inputs)).scores()
        for _ in range(resamples if inputs else 0)
    ]
    # Labels that cannot be judged may be missing from a sample, which then has more scores.
    known = prediction.scores() if samples else ()
    return {key: _ends([one[key] for one in samples]) for key in known}


def detection_intervals(
    split: OutOfDistribution, resamples: int, rng: np.random.Generator
) -> dict[str, Interval]:
    """Resample inputs inside and outside and judge each sample.

    Parameters
    ----------
    split
        Inputs from elsewhere.
    resamples
        Number of samples.
    rng
        Draws them.

    Returns
    -------
    dict
        Intervals of ``aupr``, ``fpr95`` and, where known, ``oodmi``.
    """
    score = detector(split)
    if score is None or not resamples:
        return {}
    both = split.inside[score], split.outside[score]
    found = [
        detect(*(v[rng.integers(len(v), size=len(v))] for v in both)) for _ in range(resamples)
    ]
    result = {key: _ends([getattr(one, key) for one in found]) for key in ("aupr", "fpr95")}
    if "mutual_information" in split.outside:
        values = split.outside["mutual_information"]
        means = [values[rng.integers(len(values), size=len(values))].mean() for _ in found]
        result["oodmi"] = _ends(means)
    return result


def function_intervals(
    prediction: Prediction, reference: xr.DataTree, resamples: int, seed: int
) -> dict[str, Interval]:
    """Resample the test inputs of ``agreement`` and ``total_variation`` to a reference.

    Parameters
    ----------
    prediction
        Class probabilities.
    reference
        A trace with predictions on the same inputs.
    resamples
        Number of samples.
    seed
        Of the samples.
    """
    other = posterior_prediction(reference)
    if other is None or other.mean is None or prediction.mean is None:
        return {}
    ours, theirs = prediction.mean, other.mean
    rng = np.random.default_rng(seed)
    picks = [rng.integers(len(ours), size=len(ours)) for _ in range(resamples)]
    return {
        "agreement": _ends([agreement(ours[rows], theirs[rows]) for rows in picks]),
        "total_variation": _ends([total_variation(ours[rows], theirs[rows]) for rows in picks]),
    }


def resampled_interval(
    numbers: NDArray[np.float64],
    reduce: Callable[[Any], Any],
    resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """Resample numbers, reduce each sample, and return the percentile interval."""
    size = len(numbers)
    return _ends([float(reduce(numbers[rng.integers(size, size=size)])) for _ in range(resamples)])


def detector(split: OutOfDistribution) -> str | None:
    """Return the score by which inputs from elsewhere are told: largest probability, or spread."""
    return next((score for score in (SCORE, "spread") if score in split.detection), None)


def resampled(prediction: Prediction, rows: NDArray[np.int64]) -> Prediction:
    """Return the predictions for some inputs, each as often as it is named."""

    def take(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else values[rows]

    return replace(
        prediction,
        y=take(prediction.y),
        log_predictive=take(prediction.log_predictive),
        mean=take(prediction.mean),
        pit=take(prediction.pit),
        spread=take(prediction.spread),
        noise=take(prediction.noise),
        crps=take(prediction.crps),
    )


def _ends(values: list[float]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
