"""The columns of a comparison: those of the study's Table 1, and cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal["", "reference", "predictions", "elsewhere", "cost"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    key
        Its name in the data frame.
    label
        Its head in a table.
    meaning
        What it is, in a sentence.
    better
        In which direction; None where neither is better.
    group
        The part of the page that it stands in; empty for what names the run.
    least, most
        Between which it lies; intervals end there too.
    """

    key: str
    label: str
    meaning: str
    better: Literal["lower", "higher"] | None = None
    group: Group = ""
    least: float = -math.inf
    most: float = math.inf


COLUMNS = (
    Column("method", "Method", "kernel or guide"),
    Column("modes", "Modes", "ensemble members, or chains started apart"),
    Column("draws", "Draws", "over all chains"),
    Column(
        "mmd",
        "MMD²",
        "unbiased squared MMD of the weights to the reference",
        "lower",
        group="reference",
    ),
    Column(
        "ns", "NS", "the same of canonical weights, symmetries removed", "lower", group="reference"
    ),
    Column(
        "agreement",
        "Agreement",
        "share of test inputs with the reference's answer",
        "higher",
        group="reference",
        least=0,
        most=1,
    ),
    Column(
        "total_variation",
        "TV",
        "total variation to the reference's predictions",
        "lower",
        group="reference",
        least=0,
        most=1,
    ),
    Column(
        "accuracy",
        "Accuracy",
        "share of right answers",
        "higher",
        group="predictions",
        least=0,
        most=1,
    ),
    Column(
        "rmse",
        "RMSE",
        "root mean squared error of the predictive mean",
        "lower",
        group="predictions",
        least=0,
    ),
    Column(
        "nll", "NLL", "negative log predictive density, nats an input", "lower", group="predictions"
    ),
    Column(
        "crps", "CRPS", "continuous ranked probability score", "lower", group="predictions", least=0
    ),
    Column(
        "ece",
        "ECE",
        "expected calibration error, 15 bins of equal width",
        "lower",
        group="predictions",
        least=0,
        most=1,
    ),
    Column(
        "ace",
        "ACE",
        "adaptive calibration error, 15 bins of equal counts",
        "lower",
        group="predictions",
        least=0,
        most=1,
    ),
    Column(
        "brier",
        "Brier",
        "squared error of class probabilities, summed",
        "lower",
        group="predictions",
        least=0,
        most=2,
    ),
    Column(
        "coverage90",
        "Cover 90",
        "share of observations in the central 90 % interval",
        group="predictions",
        least=0,
        most=1,
    ),
    Column(
        "aupr",
        "AUPR",
        "detection of inputs from elsewhere by largest probability",
        "higher",
        group="elsewhere",
        least=0,
        most=1,
    ),
    Column(
        "fpr95",
        "FPR95",
        "false alarms where 95 % of them are detected",
        "lower",
        group="elsewhere",
        least=0,
        most=1,
    ),
    Column(
        "idmi",
        "IDMI",
        "mutual information of label and weights on the test split, nats",
        group="elsewhere",
        least=0,
    ),
    Column("oodmi", "OODMI", "the same on inputs from elsewhere", group="elsewhere", least=0),
    Column(
        "stacking",
        "Weight",
        "stacking weight among these runs on the test split",
        group="predictions",
        least=0,
        most=1,
    ),
    Column(
        "loo",
        "LOO",
        "expected log predictive density by PSIS-LOO, a training row",
        "higher",
        group="predictions",
    ),
    Column("rhat", "R-hat", "largest in function space", "lower", group="cost", least=0),
    Column("ess", "ESS", "median bulk ESS in function space", "higher", group="cost", least=0),
    Column("seconds", "Seconds", "of warm-up and sampling", "lower", group="cost", least=0),
    Column("gradients", "Gradients", "chain-gradients in all", "lower", group="cost", least=0),
)
"""The columns that a comparison may have, in their order; one that no run fills is left out."""
