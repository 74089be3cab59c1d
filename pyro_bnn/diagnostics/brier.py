"""The Brier score in three parts: reliability, resolution and uncertainty (Murphy 1973)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bnn.diagnostics.metrics import BINS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BrierParts:
    """Brier score of binned probabilities: ``reliability - resolution + uncertainty``.

    Attributes
    ----------
    reliability
        Squared distance of probability and frequency: 0 if calibrated.
    resolution
        Squared distance of the bins' frequencies from the overall one: more is better.
    uncertainty
        Score of the overall frequencies.
    """

    reliability: float
    resolution: float
    uncertainty: float


def brier_parts(probabilities: Array, y: NDArray[Any], bins: int = BINS) -> BrierParts:
    """Decompose the Brier score, class by class, and sum over the classes.

    Parameters
    ----------
    probabilities
        Shape ``(test, class)``.
    y
        Class numbers, shape ``(test,)``.
    bins
        Number of bins of equal width. Each probability counts as its bin's mean, so the parts add
        up to the score of these means, which is lower than `brier` by the spread within bins.
    """
    parts = np.zeros(3)
    for label in range(probabilities.shape[1]):
        p, hit = probabilities[:, label], (y == label).astype(np.float64)
        place = np.clip((p * bins).astype(np.int64), 0, bins - 1)
        count = np.bincount(place, minlength=bins)
        full = count > 0
        forecast, frequency = (
            np.bincount(place, weights=w, minlength=bins)[full] / count[full] for w in (p, hit)
        )
        share, base = count[full] / len(y), hit.mean()
        parts[0] += np.sum(share * (forecast - frequency) ** 2)
        parts[1] += np.sum(share * (frequency - base) ** 2)
        parts[2] += base * (1 - base)
    return BrierParts(*parts.tolist())
