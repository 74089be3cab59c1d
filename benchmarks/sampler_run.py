"""What `benchmarks/samplers.py` and its peers hand on: a run, or how far one came in its budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["LEAST_DRAWS", "Run", "Unfinished"]

LEAST_DRAWS = 8
"""Draws of a chain from which R-hat and ESS are computed."""


class Run(NamedTuple):
    """What one sampler did."""

    log_predictive: np.ndarray
    """Of all test rows, ``(chain, draw, row)``."""
    seconds: float
    compiling: float
    gradients: float
    """Gradients of a chain, warm-up and waiting included."""
    warmup_gradients: float


class Unfinished(NamedTuple):
    """A sampler that had fewer draws than `LEAST_DRAWS` when its budget was spent."""

    seconds: float
    compiling: float
    steps: int
    warmup: int
    chains: int
    gradients: float

    @property
    def most(self) -> float:
        """Effective samples a second, if every step that was made had been an independent draw."""
        return self.chains * self.steps / self.seconds
