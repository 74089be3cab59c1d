"""Distance of two predictive distributions over classes (Izmailov et al. 2021, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def agreement(probabilities: Array, reference: Array) -> float:
    """Share of inputs on which both name the same most probable class.

    Parameters
    ----------
    probabilities, reference
        Shape ``(test, class)``.
    """
    return float(np.mean(probabilities.argmax(axis=1) == reference.argmax(axis=1)))


def total_variation(probabilities: Array, reference: Array) -> float:
    """Half the sum over classes of the absolute difference, averaged over inputs: 0 to 1.

    Parameters
    ----------
    probabilities, reference
        Shape ``(test, class)``.
    """
    return float(np.mean(0.5 * np.abs(probabilities - reference).sum(axis=1)))
