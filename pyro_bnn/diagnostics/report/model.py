"""The section on left-out rows, a guide's importance weights and stacked chains."""

from __future__ import annotations

import numpy as np

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.report.pieces import Picture, over, picture


def model_notes(found: Diagnosis) -> list[str]:
    """Say in sentences how well rows are predicted when left out, and which chains count."""
    notes = []
    if found.loo is not None:
        one = found.loo
        drawn = f", {one.rows:,} of which were looked at" if one.rows < one.total else ""
        notes.append(
            f"Leave-one-out (PSIS-LOO) over {one.total:,} training rows{drawn}: expected log"
            f" predictive density {number(one.elpd / one.rows)} nats a row, standard error"
            f" {number(one.error / one.rows)}; {number(one.parameters)} effective parameters."
            + (
                f" Pareto k exceeds {number(one.limit)} at {one.unreliable:,} rows: the estimate"
                " leans on a few draws there and flatters."
                if one.unreliable
                else f" Pareto k is at most {number(one.limit)} at every row: the estimate can be"
                " trusted if the draws are from the posterior."
            )
        )
    if found.importance is not None:
        weights = found.importance
        k = over(np.median, weights.pareto_k)
        good = int(np.sum(weights.pareto_k <= weights.limit))
        notes.append(
            f"Importance weights from the guide to the posterior: Pareto k median {number(k)},"
            f" maximum {number(over(np.max, weights.pareto_k))}; at most {number(weights.limit)}"
            f" (reliable for {weights.draws:,} draws) for {good} of"
            f" {len(weights.pareto_k)} members."
            + (
                " Where it is larger, the guide misses the posterior's mass or tails and its draws"
                " cannot be reweighted into it."
                if good < len(weights.pareto_k)
                else ""
            )
        )
    if found.stacking is not None:
        stacked = found.stacking
        notes.append(
            f"Stacking: the mixture of chains that predicts the test split best uses"
            f" {number(stacked.effective)} of {len(stacked.weights)} chains in effect; on inputs"
            f" that its weights were not fitted to, the negative log likelihood is"
            f" {number(stacked.nll_stacked)}, that of the plain average"
            f" {number(stacked.nll_equal)}."
        )
    return notes


def model_pictures(found: Diagnosis) -> list[Picture]:
    """Draw the Pareto k of the rows and the stacking weights of the chains."""
    from pyro_bnn.diagnostics.plots.model import plot_pareto_k, plot_weights

    pictures = []
    if found.loo is not None and np.isfinite(found.loo.pareto_k).any():
        pictures.append(
            picture(
                plot_pareto_k(found.loo.pareto_k, found.loo.limit),
                "Histogram of Pareto k over training rows, with the largest reliable value.",
                "Pareto k of each training row: right of the line, leaving the row out moves the"
                " posterior further than the draws reach.",
            )
        )
    if found.stacking is not None:
        pictures.append(
            picture(
                plot_weights(found.stacking.weights),
                "Stacking weight of each chain in order of size, with the line of equal weights.",
                "Stacking weights of the chains, largest first; the dashes are equal weights.",
            )
        )
    return pictures
