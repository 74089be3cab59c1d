"""Scores of the posterior mean on corrupted test inputs (Hendrycks and Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pyro_bnn.diagnostics.prediction import Prediction, averaged_prediction

GROUP = "predictions_corrupted"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Robustness:
    """How scores fall as inputs are corrupted.

    Attributes
    ----------
    severities
        As the trace names them, mildest first.
    predictions
        Corruption to the posterior predictive at each severity.
    draws
        Draws averaged over; 0 if the trace does not say.
    """

    severities: tuple[int, ...]
    predictions: Mapping[str, tuple[Prediction, ...]]
    draws: int

    @property
    def scores(self) -> dict[str, dict[str, Array]]:
        """Corruption to score to its value at each severity, shape ``(severity,)``.

        NaN where the predictions hold NaN, and so are not judged.
        """
        each = {name: [one.scores() for one in graded] for name, graded in self.predictions.items()}
        keys = dict.fromkeys(key for graded in each.values() for one in graded for key in one)
        return {
            name: {key: np.array([one.get(key, np.nan) for one in graded]) for key in keys}
            for name, graded in each.items()
        }

    @property
    def average(self) -> dict[str, float]:
        """Each score, averaged over corruptions and severities."""
        scores = list(self.scores.values())
        return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}


def robustness(trace: xr.DataTree) -> Robustness | None:
    """Read the predictions on corrupted inputs.

    Parameters
    ----------
    trace
        A trace; its group ``predictions_corrupted`` holds ``mean`` and ``log_predictive``,
        averaged over draws, over ``(corruption, severity, test)``.

    Returns
    -------
    Robustness or None
        None if the trace has no such group, or nothing in it.
    """
    if GROUP not in trace.children:
        return None
    group = trace[GROUP].to_dataset()
    if not {"corruption", "severity"} <= set(group.coords) or not group.data_vars:
        return None
    severities = tuple(int(one) for one in group["severity"].to_numpy())
    predictions = {
        str(name): tuple(
            averaged_prediction(trace, group.sel(corruption=name, severity=severity))
            for severity in severities
        )
        for name in group["corruption"].to_numpy()
    }
    if not severities or not predictions:
        return None
    return Robustness(severities, predictions, int(group.attrs.get("draws", 0)))
