"""How well uncertainty tells inputs of another distribution from those of the test split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pyro_bnn.diagnostics.metrics import entropy
from pyro_bnn.diagnostics.prediction import Prediction, posterior_prediction

GROUP = "predictions_ood"
RECALL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """How well one score separates, inputs from elsewhere counted as positive.

    Attributes
    ----------
    auroc, aupr
        Area under the receiver operating characteristic, and average precision.
    fpr95
        Share of test inputs that are flagged at the threshold that flags 95 % of the others.
    """

    auroc: float
    aupr: float
    fpr95: float


@dataclass(frozen=True)
class OutOfDistribution:
    """One split from elsewhere beside the test split.

    Attributes
    ----------
    name
        Of the split.
    detection
        Score to its detection: ``"max_softmax"``, ``"entropy"`` and ``"mutual_information"`` for
        classes; ``"spread"`` for continuous predictions.
    inside, outside
        The same scores at each input of the test split and of the other, in the direction in which
        more means more uncertain.
    """

    name: str
    detection: Mapping[str, Detection]
    inside: Mapping[str, Array]
    outside: Mapping[str, Array]


def out_of_distribution(
    trace: xr.DataTree, inside: Prediction | None
) -> dict[str, OutOfDistribution]:
    """Judge the detection of each split in ``predictions_ood``.

    Parameters
    ----------
    trace
        A trace; its group ``predictions_ood`` has the layout of ``predictions``. The attribute
        ``splits`` is a JSON object of the splits' names and sizes, in their order along ``test``;
        without it all inputs are one split, ``"ood"``.
    inside
        Predictions on the test split.

    Returns
    -------
    dict
        By split; empty if either is missing, or cannot be judged. Splits without inputs are left
        out.
    """
    if inside is None or ood_problem(trace, inside):
        return {}
    outside = posterior_prediction(trace, GROUP)
    if outside is None:
        return {}
    ours, theirs = uncertainties(inside), uncertainties(outside)
    shared = [name for name in ours if name in theirs]
    results = {}
    for name, rows in splits(trace, GROUP).items():
        if rows.stop <= rows.start:
            continue
        away = {score: theirs[score][rows] for score in shared}
        home = {score: ours[score] for score in shared}
        results[name] = OutOfDistribution(
            name, {score: detect(home[score], away[score]) for score in shared}, home, away
        )
    return results


def ood_problem(trace: xr.DataTree, inside: Prediction | None) -> str:
    """Say why inputs from elsewhere cannot be judged, in a sentence; empty if they can.

    Parameters
    ----------
    trace
        A trace.
    inside
        Predictions on the test split.
    """
    if GROUP not in trace.children or "mean" not in trace[GROUP] or inside is None:
        return ""
    mean = trace[GROUP]["mean"]
    if mean.sizes.get("test", 0) == 0:
        return "The split from elsewhere has no inputs: there is nothing to detect."
    if inside.mean is None:
        return "Inputs from elsewhere are predicted, but those of the test split are not."
    if len(inside.mean) == 0:
        return "The test split has no inputs to tell those from elsewhere from."
    classes = inside.mean.shape[1:] if inside.likelihood == "categorical" else ()
    if classes and mean.sizes.get("class", 1) < 2:
        return "The predictions elsewhere have fewer than two classes: no uncertainty to judge by."
    if classes and mean.sizes["class"] != classes[0]:
        return (
            f"The predictions elsewhere have {mean.sizes['class']} classes, those on the test split"
            f" {classes[0]}: they are not of one model."
        )
    return ""


def splits(trace: xr.DataTree, group: str) -> dict[str, slice]:
    """Return the rows of each split of a group along ``test``; all as one if sizes do not fit."""
    dataset = trace[group].to_dataset()
    inputs = dataset.sizes["test"]
    stated = json.loads(str(dataset.attrs.get("splits", "{}"))) or {"ood": inputs}
    if sum(stated.values()) != inputs:
        stated = {"ood": inputs}
    ends = np.cumsum(list(stated.values()))
    return {
        str(name): slice(int(end) - int(size), int(end))
        for (name, size), end in zip(stated.items(), ends, strict=True)
    }


def uncertainties(prediction: Prediction) -> dict[str, Array]:
    """Score the uncertainty of each input; more is more uncertain.

    Parameters
    ----------
    prediction
        With class probabilities or predictive means.

    Returns
    -------
    dict
        Score to shape ``(test,)``; without those that need several draws if there is one.
    """
    scores: dict[str, Array] = {}
    if prediction.is_classification and prediction.mean is not None:
        scores["max_softmax"] = -prediction.mean.max(axis=1)
        scores["entropy"] = entropy(prediction.mean)
    if prediction.spread is not None:
        name = "mutual_information" if prediction.is_classification else "spread"
        # Of several values a row, the root of the sum of their variances.
        rows = prediction.spread.reshape(len(prediction.spread), -1)
        scores[name] = np.sqrt((rows**2).sum(axis=1)) if rows.shape[1] != 1 else rows[:, 0]
    return scores


def detect(inside: Array, outside: Array) -> Detection:
    """Judge a score on two sets of inputs.

    Parameters
    ----------
    inside, outside
        Uncertainty of each input, shapes ``(n,)`` and ``(m,)``.
    """
    scores = np.concatenate([inside, outside])
    positive = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    return Detection(
        auroc=float(roc_auc_score(positive, scores)),
        aupr=float(average_precision_score(positive, scores)),
        fpr95=float(false[np.argmax(true >= RECALL)]),
    )
