"""The columns of a comparison: those of the study's Table 1, and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    """

    key: str
    label: str
    meaning: str
    better: Literal["lower", "higher"] | None = None


COLUMNS = (
    Column("method", "Method", "kernel or guide"),
    Column("modes", "Modes", "ensemble members, or chains started apart"),
    Column("draws", "Draws", "over all chains"),
    Column("mmd", "MMD²", "unbiased squared MMD of the weights to the reference", "lower"),
    Column("ns", "NS", "the same of canonical weights, symmetries removed", "lower"),
    Column("agreement", "Agreement", "share of test inputs with the reference's answer", "higher"),
    Column("total_variation", "TV", "total variation to the reference's predictions", "lower"),
    Column("accuracy", "Accuracy", "share of right answers", "higher"),
    Column("rmse", "RMSE", "root mean squared error of the predictive mean", "lower"),
    Column("nll", "NLL", "negative log predictive density, nats an input", "lower"),
    Column("crps", "CRPS", "continuous ranked probability score", "lower"),
    Column("ece", "ECE", "expected calibration error, 15 bins of equal width", "lower"),
    Column("ace", "ACE", "adaptive calibration error, 15 bins of equal counts", "lower"),
    Column("brier", "Brier", "squared error of class probabilities, summed", "lower"),
    Column("coverage90", "Cover 90", "share of observations in the central 90 % interval"),
    Column("aupr", "AUPR", "detection of inputs from elsewhere by largest probability", "higher"),
    Column("fpr95", "FPR95", "false alarms where 95 % of them are detected", "lower"),
    Column("idmi", "IDMI", "mutual information of label and weights on the test split, nats"),
    Column("oodmi", "OODMI", "the same on inputs from elsewhere"),
    Column("stacking", "Weight", "stacking weight among these runs on the test split"),
    Column("loo", "LOO", "expected log predictive density by PSIS-LOO, a training row", "higher"),
    Column("rhat", "R-hat", "largest in function space", "lower"),
    Column("ess", "ESS", "median bulk ESS in function space", "higher"),
    Column("seconds", "Seconds", "of warm-up and sampling", "lower"),
    Column("gradients", "Gradients", "chain-gradients in all", "lower"),
)
