"""The report of a run: one HTML page that needs nothing beside it."""

from __future__ import annotations

from pyro_bnn.diagnostics.report.page import render, write_report

__all__ = ["render", "write_report"]
