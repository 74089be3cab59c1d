"""Bayesian neural networks in Pyro: declare, infer, record, quotient, judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_bnn import openmp as openmp
from pyro_bnn.on_demand import on_demand

if TYPE_CHECKING:
    from pyro_bnn.data import Data, Split
    from pyro_bnn.errors import UserError
    from pyro_bnn.logdensity import LogDensity
    from pyro_bnn.nn import lift
else:
    __getattr__ = on_demand(
        __name__,
        {
            "Data": "pyro_bnn.data",
            "LogDensity": "pyro_bnn.logdensity",
            "Split": "pyro_bnn.data",
            "UserError": "pyro_bnn.errors",
            "lift": "pyro_bnn.nn",
        },
    )

__version__ = "0.1.0"

__all__ = ["Data", "LogDensity", "Split", "UserError", "lift"]
