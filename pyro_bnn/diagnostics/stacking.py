"""Stacking: the weights of a mixture of methods that predicts best (Yao et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEPS = 2_000
_TOLERANCE = 1e-9

Array = NDArray[np.float64]


def stacking_weights(log_predictive: Array) -> Array:
    """Find the mixture of largest mean log density on held-out data.

    Parameters
    ----------
    log_predictive
        Log predictive density of each method at each input that none was fitted to, shape
        ``(method, test)``; minus infinity is allowed.

    Returns
    -------
    numpy.ndarray
        Weights of shape ``(method,)`` that sum to one. The problem is concave; expectation
        maximisation climbs until the mean log density gains less than 1e-9 a step.

    Examples
    --------
    >>> stacking_weights(np.log([[0.9, 0.1], [0.1, 0.9], [0.3, 0.3]])).round(2).tolist()
    [0.5, 0.5, 0.0]
    """
    methods = len(log_predictive)
    useful = np.isfinite(log_predictive).any(axis=0)
    values = log_predictive[:, useful]
    weights = np.full(methods, 1 / methods)
    if not useful.any():
        return weights
    best, most = -np.inf, values.max(axis=0)
    density = np.exp(values - most)  # of each input, relative to its best method
    for _ in range(_STEPS):
        mixture = weights @ density
        score = float((np.log(mixture) + most).mean())
        if score - best < _TOLERANCE:
            break
        best = score
        weights = weights * (density / mixture).mean(axis=1)
    result: Array = weights / weights.sum()
    return result
