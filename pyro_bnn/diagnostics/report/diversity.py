"""The section on diversity: how far pairs of draws are from each other as functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import ABSENT, number
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_NAMES = {
    "mutual_information": "mutual information of label and draw, nats",
    "disagreement": "share of inputs with another answer",
    "distance": "squared distance of predictions",
}


def diversity_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out each distance, on the test split and on inputs from elsewhere."""
    rows = []
    for where, pairs in (("test", found.diversity), ("elsewhere", found.diversity_ood)):
        if pairs is None:
            continue
        for name, values in pairs.distances.items():
            low, high = np.quantile(values, [0.05, 0.95])
            rows.append(
                {
                    "name": _NAMES[name],
                    "where": where,
                    "within": _mean(values[pairs.same_chain]),
                    "across": _mean(values[~pairs.same_chain]),
                    "range": f"{number(float(low))} to {number(float(high))}",
                }
            )
    return rows


def diversity_pictures(found: Diagnosis) -> list[Picture]:
    """Draw histograms over the pairs on the test split."""
    from pyro_bnn.diagnostics.plots.diversity import plot_diversity

    if found.diversity is None:
        return []
    named = {_NAMES[name]: values for name, values in found.diversity.distances.items()}
    return [
        picture(
            plot_diversity(named, found.diversity.same_chain),
            "Histograms of the distance of pairs of draws as functions, within and across chains.",
            "Pairs of draws on the test split: where pairs of one chain are closer, the chains"
            " hold different functions.",
        )
    ]


def _mean(values: NDArray[np.float64]) -> str:
    return number(float(values.mean())) if len(values) else ABSENT
