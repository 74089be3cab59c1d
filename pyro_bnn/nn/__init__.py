"""Declare: an ``nn.Module`` and a prior become a Pyro model."""

from __future__ import annotations

from pyro_bnn.nn.layers import FilterResponseNorm2d
from pyro_bnn.nn.lift import Lifted, lift
from pyro_bnn.nn.likelihoods import (
    binary,
    categorical,
    gaussian,
    heteroscedastic,
    poisson,
    student_t,
)
from pyro_bnn.nn.prior_predictive import PriorPredictive, prior_predictive
from pyro_bnn.nn.priors import (
    Cauchy,
    CorrelatedFilters,
    Hierarchical,
    HierarchicalPrior,
    Horseshoe,
    Laplace,
    Multivariate,
    Normal,
    Prior,
    ScaleMixture,
    StudentT,
)

__all__ = [
    "Cauchy",
    "CorrelatedFilters",
    "FilterResponseNorm2d",
    "Hierarchical",
    "HierarchicalPrior",
    "Horseshoe",
    "Laplace",
    "Lifted",
    "Multivariate",
    "Normal",
    "Prior",
    "PriorPredictive",
    "ScaleMixture",
    "StudentT",
    "binary",
    "categorical",
    "gaussian",
    "heteroscedastic",
    "lift",
    "poisson",
    "prior_predictive",
    "student_t",
]
