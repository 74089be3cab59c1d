"""Scores of predictive distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, xlogy

Array = NDArray[np.float64]
BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal bins of confidence, empty bins left out.

    Attributes
    ----------
    confidence, accuracy
        Mean confidence and share of right answers a bin, shape ``(bin,)``.
    count
        Inputs a bin, shape ``(bin,)``.
    """

    confidence: Array
    accuracy: Array
    count: NDArray[np.int64]


def accuracy(probabilities: Array, y: NDArray[Any]) -> float:
    """Share of inputs whose most probable class is `y`.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    """
    return float(np.mean(probabilities.argmax(axis=1) == y))


def brier(probabilities: Array, y: NDArray[Any]) -> float:
    """Mean over inputs of the squared error summed over classes (Brier 1950): 0 to 2.

    For two classes this is twice the one-class form of `sklearn.metrics.brier_score_loss`.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    """
    error = probabilities.copy()
    error[np.arange(len(y)), y.astype(np.int64)] -= 1.0
    return float(np.mean(np.sum(error**2, axis=1)))


def reliability(probabilities: Array, y: NDArray[Any], bins: int = BINS) -> Reliability:
    """Bin the inputs by the probability of the most probable class.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    bins
        Number of bins of equal width over 0 to 1, each open below and closed above.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == y).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    sums = [np.bincount(place, weights=w, minlength=bins)[full] for w in (confidence, right)]
    return Reliability(sums[0] / count[full], sums[1] / count[full], count[full])


def expected_calibration_error(probabilities: Array, y: NDArray[Any], bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins, weighted by inputs (Guo et al. 2017).

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    bins
        Number of bins of equal width.
    """
    table = reliability(probabilities, y, bins)
    gap = np.abs(table.confidence - table.accuracy)
    return float(np.sum(table.count * gap) / np.sum(table.count))


def entropy(probabilities: Array) -> Array:
    """Entropy over the last axis, in nats: ``(..., class)`` to ``(...)``."""
    result: Array = -xlogy(probabilities, probabilities).sum(axis=-1)
    return result


def rmse(mean: Array, y: NDArray[Any]) -> float:
    """Root mean squared error of predictive means, in the units of `y`."""
    return float(np.sqrt(np.mean((mean - y) ** 2)))


def coverage(pit: Array, level: float) -> float:
    """Share of observations inside the central predictive interval of probability `level`.

    Parameters
    ----------
    pit
        Predictive distribution function at each observation, shape ``(test,)``.
    level
        Probability of the interval.
    """
    return float(np.mean(np.abs(pit - 0.5) <= level / 2))


def uniform_distance(pit: Array) -> float:
    """Largest distance of the empirical distribution function of `pit` from the uniform one.

    This is the Kolmogorov-Smirnov statistic: of calibrated predictions it stays below
    ``1.36 / sqrt(test)`` 95 times of 100.
    """
    ordered = np.sort(pit)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))


def adaptive_calibration_error(probabilities: Array, y: NDArray[Any], bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equally many inputs.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    bins
        Number of bins; as many as inputs if there are fewer. Inputs of equal confidence keep
        their order.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == y).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - right)[order]
    parts = np.array_split(gaps, min(bins, len(gaps)))
    return float(sum(abs(part.sum()) for part in parts) / len(gaps))


def crps_of_normals(mean: Array, sd: Array, y: NDArray[Any]) -> Array:
    """Continuous ranked probability score of an equal mixture of normals, in the units of `y`.

    The closed form of Grimit, Gneiting, Berrocal and Johnson (2006), equation 5.

    Parameters
    ----------
    mean, sd
        Of each component, shape ``(draw, test)``; deviations are positive.
    y
        Observations, shape ``(test,)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(test,)``.
    """
    near = _mean_distance(y - mean, sd).mean(axis=0)
    # Of each component to itself, and of every pair of components once.
    apart = _mean_distance(np.zeros_like(mean), np.sqrt(2) * sd).sum(axis=0)
    for i in range(1, len(mean)):
        widths = np.sqrt(sd[i] ** 2 + sd[:i] ** 2)
        apart += 2 * _mean_distance(mean[i] - mean[:i], widths).sum(axis=0)
    result: Array = near - apart / (2 * len(mean) ** 2)
    return result


def _mean_distance(mean: Array, sd: Array) -> Array:
    """Mean absolute value of normal variables."""
    z = mean / sd
    result: Array = 2 * sd * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) + mean * (2 * ndtr(z) - 1)
    return result
