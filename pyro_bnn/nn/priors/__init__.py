"""Priors over the parameters of a network, one family a file."""

from __future__ import annotations

from pyro_bnn.nn.priors.correlated import CorrelatedFilters, Multivariate
from pyro_bnn.nn.priors.hierarchical import Hierarchical
from pyro_bnn.nn.priors.horseshoe import Horseshoe
from pyro_bnn.nn.priors.location_scale import Cauchy, Laplace, Normal, StudentT
from pyro_bnn.nn.priors.mixture import ScaleMixture
from pyro_bnn.nn.priors.prior import HierarchicalPrior, Prior

__all__ = [
    "Cauchy",
    "CorrelatedFilters",
    "Hierarchical",
    "HierarchicalPrior",
    "Horseshoe",
    "Laplace",
    "Multivariate",
    "Normal",
    "Prior",
    "ScaleMixture",
    "StudentT",
]
