"""Infer: Markov chain Monte Carlo over a batched log density, under Pyro's face."""

from __future__ import annotations

from pyro.infer import Predictive

from pyro_bnn.infer.ensemble_start import ensemble_start
from pyro_bnn.infer.kernels.adjusted_mclmc import AdjustedMCLMC
from pyro_bnn.infer.kernels.chees import ChEES
from pyro_bnn.infer.kernels.hmc import HMC
from pyro_bnn.infer.kernels.mclmc import MCLMC
from pyro_bnn.infer.kernels.nuts import NUTS
from pyro_bnn.infer.kernels.preconditioned_sgld import PreconditionedSGLD
from pyro_bnn.infer.kernels.schedules import Constant, Cyclical, PolynomialDecay
from pyro_bnn.infer.kernels.sghmc import SGHMC
from pyro_bnn.infer.kernels.sgld import SGLD
from pyro_bnn.infer.kernels.sgnht import SGNHT
from pyro_bnn.infer.mcmc import MCMC

__all__ = [
    "HMC",
    "MCLMC",
    "MCMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "AdjustedMCLMC",
    "ChEES",
    "Constant",
    "Cyclical",
    "PolynomialDecay",
    "PreconditionedSGLD",
    "Predictive",
    "ensemble_start",
]
