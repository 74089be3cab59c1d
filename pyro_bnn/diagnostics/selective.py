"""Selective prediction: how often the answers are right that are kept when the unsure are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SelectiveCurve:
    """Error among the inputs of lowest uncertainty (El-Yaniv and Wiener 2010).

    Attributes
    ----------
    coverage
        Share of inputs that are answered, ascending, shape ``(point,)``.
    risk
        Mean loss among them, shape ``(point,)``.
    area
        Mean risk over all coverages: lower is better.
    """

    coverage: Array
    risk: Array
    area: float


def selective_curve(uncertainty: Array, loss: Array) -> SelectiveCurve:
    """Order inputs by uncertainty and average the loss of the first.

    Parameters
    ----------
    uncertainty
        Shape ``(test,)``; inputs of equal uncertainty are answered together.
    loss
        Such as 1 for a wrong answer, or a squared error, shape ``(test,)``.
    """
    order = np.argsort(uncertainty, kind="stable")
    ranked = uncertainty[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    answered = last + 1
    risk = np.cumsum(loss[order])[last] / answered
    coverage = answered / len(loss)
    area = float(np.sum(np.diff(coverage, prepend=0.0) * risk))
    return SelectiveCurve(coverage, risk, area)
