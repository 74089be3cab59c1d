"""Bayesian neural networks in Pyro: declare, infer, record, quotient, judge."""

from __future__ import annotations

from pyro_bnn import openmp as openmp
from pyro_bnn.data import Data, Split
from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.nn import lift

__version__ = "0.1.0"

__all__ = ["Data", "LogDensity", "Split", "UserError", "lift"]
