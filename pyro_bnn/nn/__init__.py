"""Declare: an ``nn.Module`` and a prior become a Pyro model."""

from __future__ import annotations

from pyro_bnn.nn.lift import Lifted, lift
from pyro_bnn.nn.likelihoods import binary, categorical, gaussian
from pyro_bnn.nn.priors import Laplace, Normal, Prior, StudentT

__all__ = [
    "Laplace",
    "Lifted",
    "Normal",
    "Prior",
    "StudentT",
    "binary",
    "categorical",
    "gaussian",
    "lift",
]
