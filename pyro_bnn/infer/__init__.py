"""Infer: Markov chain Monte Carlo over a batched log density, under Pyro's face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_bnn.on_demand import on_demand

if TYPE_CHECKING:
    from pyro.infer import Predictive

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
    from pyro_bnn.infer.starting import ensemble_start
else:
    __getattr__ = on_demand(
        __name__,
        {
            "AdjustedMCLMC": "pyro_bnn.infer.kernels.adjusted_mclmc",
            "ChEES": "pyro_bnn.infer.kernels.chees",
            "Constant": "pyro_bnn.infer.kernels.schedules",
            "Cyclical": "pyro_bnn.infer.kernels.schedules",
            "HMC": "pyro_bnn.infer.kernels.hmc",
            "MCLMC": "pyro_bnn.infer.kernels.mclmc",
            "MCMC": "pyro_bnn.infer.mcmc",
            "NUTS": "pyro_bnn.infer.kernels.nuts",
            "PolynomialDecay": "pyro_bnn.infer.kernels.schedules",
            "PreconditionedSGLD": "pyro_bnn.infer.kernels.preconditioned_sgld",
            "Predictive": "pyro.infer",
            "SGHMC": "pyro_bnn.infer.kernels.sghmc",
            "SGLD": "pyro_bnn.infer.kernels.sgld",
            "SGNHT": "pyro_bnn.infer.kernels.sgnht",
            "ensemble_start": "pyro_bnn.infer.starting",
        },
    )

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
