"""Markov kernels over a batch of chains, one algorithm a file; here, what they are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyro_bnn.on_demand import on_demand

if TYPE_CHECKING:
    from pyro_bnn.infer.kernels.hamiltonian import Info
    from pyro_bnn.infer.kernels.kernel import Kernel
    from pyro_bnn.infer.kernels.stochastic_gradient import StochasticGradientKernel
else:
    __getattr__ = on_demand(  # adaptation imports a module of this package, and a kernel imports it
        __name__,
        {
            "Info": "pyro_bnn.infer.kernels.hamiltonian",
            "Kernel": "pyro_bnn.infer.kernels.kernel",
            "StochasticGradientKernel": "pyro_bnn.infer.kernels.stochastic_gradient",
        },
    )

__all__ = ["Info", "Kernel", "StochasticGradientKernel"]
