"""Settings of stochastic-gradient Langevin dynamics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.sgld import SGLD
from pyro_bnn.infer.settings.stochastic_gradient import StochasticGradientSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["SGLDSettings"]


class SGLDSettings(StochasticGradientSettings):
    """Table ``[kernel]`` of a recipe with ``name = "sgld"``."""

    name: Literal["sgld"] = Field("sgld", description="Stochastic-gradient Langevin dynamics.")

    def kernel(self, density: LogDensity) -> SGLD:
        """Build the kernel."""
        return SGLD(density, **self.options())
