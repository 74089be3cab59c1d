"""The section on corrupted inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.report.pieces import Picture, picture

_NAMES = {
    "accuracy": "Accuracy",
    "rmse": "RMSE",
    "nll": "Negative log likelihood",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
}


def robustness_rows(found: Diagnosis) -> dict[str, Any] | None:
    """Lay out each score at each severity, averaged over corruptions."""
    graded = found.robustness
    if graded is None:
        return None
    clean = {} if found.posterior is None else found.posterior.scores()
    scores = list(graded.scores.values())
    rows = [
        (
            name,
            number(clean.get(key)),
            [number(float(v)) for v in np.mean([one[key] for one in scores], axis=0)],
        )
        for key, name in _NAMES.items()
        if key in scores[0]
    ]
    return {
        "rows": rows,
        "severities": graded.severities,
        "names": ", ".join(graded.scores),
        "draws": graded.draws,
    }


def robustness_pictures(found: Diagnosis) -> list[Picture]:
    """Draw a score against severity, a line a corruption."""
    from pyro_bnn.diagnostics.plots.robustness import plot_robustness

    graded = found.robustness
    if graded is None:
        return []
    clean = {} if found.posterior is None else found.posterior.scores()
    scores = graded.scores
    known = next(iter(scores.values()))
    pictures = []
    for key, name in _NAMES.items():
        if key not in known or key in ("nll", "brier"):
            continue
        pictures.append(
            picture(
                plot_robustness(
                    graded.severities,
                    {corruption: one[key] for corruption, one in scores.items()},
                    name,
                    clean.get(key),
                ),
                f"{name} against the severity of each corruption.",
                f"{name} as the inputs are corrupted; severity 0 is the test split as it is.",
            )
        )
    return pictures
