"""Infer: Markov chain Monte Carlo over a batched log density, under Pyro's face."""

from __future__ import annotations

from pyro.infer import Predictive

from pyro_bnn.infer.kernels.hmc import HMC
from pyro_bnn.infer.kernels.nuts import NUTS
from pyro_bnn.infer.mcmc import MCMC

__all__ = ["HMC", "MCMC", "NUTS", "Predictive"]
