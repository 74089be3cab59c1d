"""Bayesian neural networks in Pyro: declare, infer, record, quotient, judge."""

from __future__ import annotations

__version__ = "0.1.0"
