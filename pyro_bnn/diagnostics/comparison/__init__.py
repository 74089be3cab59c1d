"""Several runs in one table: how close to a reference, how good, how calibrated, at what cost."""

from __future__ import annotations

from pyro_bnn.diagnostics.comparison.columns import COLUMNS, Column
from pyro_bnn.diagnostics.comparison.compare import compare
from pyro_bnn.diagnostics.comparison.entry import Entry
from pyro_bnn.diagnostics.comparison.table import Comparison
from pyro_bnn.diagnostics.loo import Loo, loo
from pyro_bnn.diagnostics.stacking import stacking_weights

__all__ = [
    "COLUMNS",
    "Column",
    "Comparison",
    "Entry",
    "Loo",
    "compare",
    "loo",
    "stacking_weights",
]
