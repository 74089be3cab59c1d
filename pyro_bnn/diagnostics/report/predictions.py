"""The section on predictions: scores and pictures of the test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.brier import brier_parts
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number, percent
from pyro_bnn.diagnostics.prediction import Prediction
from pyro_bnn.diagnostics.report.pieces import Picture, picture
from pyro_bnn.diagnostics.selective import selective_curve

_SCORES = (
    ("accuracy", "Accuracy", "higher is better"),
    ("rmse", "RMSE", "lower is better, in the units of y"),
    ("nll", "Negative log likelihood", "lower is better, nats an input"),
    ("brier", "Brier score", "lower is better, summed over classes"),
    ("ece", "Calibration error (ECE)", "lower is better, 15 bins"),
    ("ace", "Adaptive calibration error (ACE)", "lower is better, 15 bins of equal counts"),
    ("aurc", "Area under risk and coverage", "lower is better: error among the surest answers"),
    ("mutual_information", "Mutual information", "nats: what the draws disagree on"),
    ("crps", "CRPS", "lower is better, normal likelihood, in the units of y"),
    ("coverage50", "Coverage of 50 % intervals", "0.5 if calibrated"),
    ("coverage90", "Coverage of 90 % intervals", "0.9 if calibrated"),
)
_DETECTORS = {
    "max_softmax": "largest probability",
    "entropy": "entropy",
    "mutual_information": "mutual information",
    "spread": "standard deviation over draws",
}


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
    if found.point is not None and not found.point.problem:
        both["point estimate"] = found.point
    if found.posterior.is_classification:
        return _classification_pictures(found.posterior, both)
    return _regression_pictures(found.posterior, both)


def _classification_pictures(ours: Prediction, both: dict[str, Prediction]) -> list[Picture]:
    from pyro_bnn.diagnostics.plots.reliability import plot_reliability
    from pyro_bnn.diagnostics.plots.selective import plot_selective
    from pyro_bnn.diagnostics.plots.uncertainty import plot_entropy

    if ours.mean is None or ours.y is None or ours.problem:
        return []
    tables = {
        name: metrics.reliability(one.mean, one.y)
        for name, one in both.items()
        if one.mean is not None and one.y is not None
    }
    right = ours.mean.argmax(axis=1) == ours.y
    curves = {
        name: selective_curve(-one.mean.max(axis=1), (one.mean.argmax(axis=1) != one.y) * 1.0)
        for name, one in both.items()
        if one.mean is not None and one.y is not None
    }
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
        picture(
            plot_selective(curves),
            "Error among the answers that are kept against the share that is kept.",
            "Selective prediction: the error that is left when only the surest inputs are"
            " answered.",
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


def uncertainty_notes(found: Diagnosis) -> list[str]:
    """Say in sentences what the uncertainty consists of, and what a temperature would gain."""
    ours = found.posterior
    if ours is None:
        return []
    notes = []
    if ours.noise is not None and ours.spread is not None:
        noise, spread = float(np.mean(ours.noise)), float(np.mean(ours.spread))
        if ours.is_classification:
            share = percent(spread / (noise + spread)) if noise + spread > 0 else "0 %"
            notes.append(
                f"Of the mean predictive entropy of {number(noise + spread)} nats, {share} is"
                " epistemic (the draws disagree), the rest aleatoric (each draw is unsure)."
            )
        else:
            epistemic, aleatoric = (float(np.mean(v**2)) for v in (ours.spread, ours.noise))
            share = percent(epistemic / (epistemic + aleatoric))
            notes.append(
                f"Of the mean predictive variance of {number(epistemic + aleatoric)}, {share} is"
                " epistemic (the draws' means disagree), the rest aleatoric (noise)."
            )
    judged = ours.is_classification and ours.mean is not None and not ours.problem
    if judged and ours.mean is not None and ours.y is not None and len(ours.y) > 1:
        parts = brier_parts(ours.mean, ours.y)
        notes.append(
            f"The Brier score of binned probabilities is {number(parts.reliability)} (reliability,"
            f" 0 if calibrated) minus {number(parts.resolution)} (resolution) plus"
            f" {number(parts.uncertainty)} (uncertainty of the labels)."
        )
    scaling = ours.temperature
    if scaling is not None and scaling.nll_before > 0:
        sure = "too sure" if scaling.value > 1 else "not sure enough"
        notes.append(
            f"The temperature that fits best is {number(scaling.value)} (the predictions are"
            f" {sure}); on inputs that it was not fitted to, temperature scaling changes the"
            f" negative log likelihood from {number(scaling.nll_before)} to"
            f" {number(scaling.nll_after)}."
        )
    return notes


def ood_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out how well each score detects each split from elsewhere."""
    return [
        {
            "split": split.name,
            "score": _DETECTORS[score],
            "auroc": number(detection.auroc, fixed=True),
            "aupr": number(detection.aupr, fixed=True),
            "fpr95": number(detection.fpr95, fixed=True),
            "inside": number(float(np.mean(split.inside[score]))),
            "outside": number(float(np.mean(split.outside[score]))),
        }
        for split in found.ood.values()
        for score, detection in split.detection.items()
    ]


def ood_pictures(found: Diagnosis) -> list[Picture]:
    """Draw the uncertainty inside and outside, two splits at most."""
    from pyro_bnn.diagnostics.plots.ood import plot_ood

    pictures = []
    for split in list(found.ood.values())[:2]:
        scores = [score for score in split.detection if score != "max_softmax"]
        if not scores:
            continue
        shown = {_DETECTORS[s]: (split.inside[s], split.outside[s]) for s in scores}
        pictures.append(
            picture(
                plot_ood(shown, split.name),
                "Histograms of uncertainty on the test split and on another distribution.",
                f"Uncertainty on the test split and on {split.name}: the further apart, the better"
                " the draws know what they have not seen.",
            )
        )
    return pictures
