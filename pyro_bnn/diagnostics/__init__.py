"""Judge a trace: convergence in three spaces, predictions, and a report for people."""

from __future__ import annotations

from pyro_bnn.diagnostics.convergence import Convergence
from pyro_bnn.diagnostics.diagnosis import Diagnosis, diagnose
from pyro_bnn.diagnostics.prediction import Prediction, point_prediction, posterior_prediction
from pyro_bnn.diagnostics.report import write_report
from pyro_bnn.diagnostics.summary import SUMMARY_KEYS, summarize, write_summary
from pyro_bnn.diagnostics.table import summary_table

__all__ = [
    "SUMMARY_KEYS",
    "Convergence",
    "Diagnosis",
    "Prediction",
    "diagnose",
    "point_prediction",
    "posterior_prediction",
    "summarize",
    "summary_table",
    "write_report",
    "write_summary",
]
