"""Settings of stochastic-gradient Hamiltonian Monte Carlo."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.sghmc import SGHMC
from pyro_bnn.infer.settings.stochastic_gradient import StochasticGradientSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["SGHMCSettings"]


class SGHMCSettings(StochasticGradientSettings):
    """Table ``[kernel]`` of a recipe with ``name = "sghmc"``."""

    name: Literal["sghmc"] = Field("sghmc", description="Stochastic-gradient HMC.")
    friction: float = Field(0.1, gt=0, le=1, description="One minus the momentum.")
    gradient_noise: float = Field(
        0.0, ge=0, description="Estimated variance of minibatch gradients, taken off the noise."
    )

    def kernel(self, density: LogDensity) -> SGHMC:
        """Build the kernel."""
        return SGHMC(density, **self.options())
