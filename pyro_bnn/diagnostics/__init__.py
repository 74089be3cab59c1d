"""Judge a trace: convergence, predictions, distance to a reference, and a report for people."""

from __future__ import annotations

from pyro_bnn.diagnostics.comparison import Comparison, compare
from pyro_bnn.diagnostics.convergence import Convergence
from pyro_bnn.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_bnn.diagnostics.keys import SUMMARY_KEYS
from pyro_bnn.diagnostics.prediction import Prediction, point_prediction, posterior_prediction
from pyro_bnn.diagnostics.quality import PosteriorQuality, posterior_quality
from pyro_bnn.diagnostics.report import write_report
from pyro_bnn.diagnostics.summary import summarize, write_summary
from pyro_bnn.diagnostics.table import summary_table

__all__ = [
    "SUMMARY_KEYS",
    "Comparison",
    "Convergence",
    "Diagnosis",
    "PosteriorQuality",
    "Prediction",
    "compare",
    "diagnose",
    "point_prediction",
    "posterior_prediction",
    "posterior_quality",
    "summarize",
    "summary_table",
    "write_report",
    "write_summary",
]
