"""Temperature scaling: one number that sharpens or flattens all predictions (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Array = NDArray[np.float64]

_RANGE = 5.0  # of the logarithm: temperatures from 0.007 to 148


@dataclass(frozen=True)
class Temperature:
    """What temperature scaling gains.

    Attributes
    ----------
    value
        Temperature fitted to all inputs; above 1, the predictions are too sure.
    nll_before, nll_after
        Negative log likelihood as predicted, and with the temperature of the other half of the
        inputs.
    """

    value: float
    nll_before: float
    nll_after: float


def temperature_scaling(probabilities: Array, y: NDArray[Any], seed: int = 0) -> Temperature:
    """Fit a temperature, and measure what it gains on inputs that it was not fitted to.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``, of two inputs at least.
    y
        Class numbers, shape ``(test,)``.
    seed
        Of the split into halves.
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    labels = y.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    after = 0.0
    for fitted, judged in (halves, halves[::-1]):
        found = _fit(logits[fitted], labels[fitted])
        after += len(judged) * _nll(logits[judged], labels[judged], found)
    return Temperature(
        value=_fit(logits, labels),
        nll_before=_nll(logits, labels, 1.0),
        nll_after=after / len(labels),
    )


def tempered(probabilities: Array, temperature: float) -> Array:
    """Return probabilities proportional to ``p ** (1 / temperature)``, ``(test, class)``."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    result: Array = np.exp(log_softmax(logits / temperature, axis=1))
    return result


def _fit(logits: Array, y: NDArray[np.int64]) -> float:
    found = minimize_scalar(
        lambda log_t: _nll(logits, y, np.exp(log_t)), bounds=(-_RANGE, _RANGE), method="bounded"
    )
    return float(np.exp(found.x))


def _nll(logits: Array, y: NDArray[np.int64], temperature: float) -> float:
    scaled = log_softmax(logits / temperature, axis=1)
    return float(-scaled[np.arange(len(y)), y].mean())
