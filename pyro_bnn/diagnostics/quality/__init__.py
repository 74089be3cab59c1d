"""How far a sample of networks is from a reference: MMD, sliced Wasserstein, predictions."""

from __future__ import annotations

from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.diagnostics.quality.function_space import agreement, total_variation
from pyro_bnn.diagnostics.quality.mmd import Mmd, bandwidth_grid, mmd
from pyro_bnn.diagnostics.quality.posterior import (
    PosteriorQuality,
    WeightDistance,
    posterior_quality,
)
from pyro_bnn.diagnostics.quality.wasserstein import SlicedWasserstein

__all__ = [
    "Distances",
    "Mmd",
    "PosteriorQuality",
    "SlicedWasserstein",
    "WeightDistance",
    "agreement",
    "bandwidth_grid",
    "mmd",
    "posterior_quality",
    "total_variation",
]
