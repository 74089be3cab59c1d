"""The section on predictions: scores and pictures of the test split."""

from __future__ import annotations

from typing import Any

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.prediction import Prediction
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_SCORES = (
    ("accuracy", "Accuracy", "higher is better"),
    ("rmse", "RMSE", "lower is better, in the units of y"),
    ("nll", "Negative log likelihood", "lower is better, nats an input"),
    ("brier", "Brier score", "lower is better, summed over classes"),
    ("ece", "Calibration error (ECE)", "lower is better, 15 bins"),
    ("coverage50", "Coverage of 50 % intervals", "0.5 if calibrated"),
    ("coverage90", "Coverage of 90 % intervals", "0.9 if calibrated"),
)


def score_rows(found: Diagnosis) -> list[dict[str, Any]]:
    """Lay out the scores of the posterior mean and of the point estimate."""
    ours = found.posterior.scores() if found.posterior is not None else {}
    theirs = found.point.scores() if found.point is not None else {}
    return [
        {
            "name": name,
            "hint": hint,
            "posterior": number(ours.get(key)),
            "point": number(theirs.get(key)),
        }
        for key, name, hint in _SCORES
        if key in ours or key in theirs
    ]


def prediction_pictures(found: Diagnosis) -> list[Picture]:
    """Draw calibration and uncertainty on the test split."""
    if found.posterior is None:
        return []
    both = {"posterior mean": found.posterior}
    if found.point is not None:
        both["point estimate"] = found.point
    if found.posterior.is_classification:
        return _classification_pictures(found.posterior, both)
    return _regression_pictures(found.posterior, both)


def _classification_pictures(ours: Prediction, both: dict[str, Prediction]) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.reliability import plot_reliability
    from pyro_bnn.diagnostics.plots.uncertainty import plot_entropy

    if ours.mean is None or ours.y is None:
        return []
    tables = {
        name: metrics.reliability(one.mean, one.y)
        for name, one in both.items()
        if one.mean is not None and one.y is not None
    }
    right = ours.mean.argmax(axis=1) == ours.y
    return [
        picture(
            plot_reliability(tables),
            "Share of right answers against confidence, with the diagonal of perfect calibration.",
            "Reliability: below the diagonal, predictions are more confident than right.",
        ),
        picture(
            plot_entropy(metrics.entropy(ours.mean), right, ours.mean.shape[1]),
            "Histograms of predictive entropy for right and for wrong answers.",
            "Uncertainty: a useful posterior is uncertain where it is wrong.",
        ),
    ]


def _regression_pictures(ours: Prediction, both: dict[str, Prediction]) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.pit import plot_pit
    from pyro_bnn.diagnostics.plots.uncertainty import plot_intervals

    pictures = []
    pits = {name: one.pit for name, one in both.items() if one.pit is not None}
    if pits:
        pictures.append(
            picture(
                plot_pit(pits),
                "Share of observations inside central predictive intervals of each probability.",
                "Coverage: below the diagonal, the predictive intervals are too narrow.",
            )
        )
    if ours.mean is not None and ours.spread is not None and ours.y is not None:
        pictures.append(
            picture(
                plot_intervals(ours.mean, ours.spread, ours.y),
                "Predictive means against observations with bars of two standard deviations.",
                "Predictions on the test split; the bars show how far the draws' means spread.",
            )
        )
    return pictures
