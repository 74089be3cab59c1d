"""Settings of the stochastic-gradient Nose-Hoover thermostat."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.sgnht import SGNHT
from pyro_bnn.infer.settings.stochastic_gradient import StochasticGradientSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["SGNHTSettings"]


class SGNHTSettings(StochasticGradientSettings):
    """Table ``[kernel]`` of a recipe with ``name = "sgnht"``."""

    name: Literal["sgnht"] = Field("sgnht", description="Stochastic-gradient thermostat.")
    friction: float = Field(0.1, gt=0, le=1, description="First friction.")

    def kernel(self, density: LogDensity) -> SGNHT:
        """Build the kernel."""
        return SGNHT(density, **self.options())
