"""Settings of preconditioned stochastic-gradient Langevin dynamics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.preconditioned_sgld import PreconditionedSGLD
from pyro_bnn.infer.settings.stochastic_gradient import StochasticGradientSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["PreconditionedSGLDSettings"]


class PreconditionedSGLDSettings(StochasticGradientSettings):
    """Table ``[kernel]`` of a recipe with ``name = "preconditioned-sgld"``."""

    name: Literal["preconditioned-sgld"] = Field(
        "preconditioned-sgld", description="Langevin dynamics with RMSprop's preconditioner."
    )
    step_size: float = Field(
        1e-2, gt=0, description="First learning rate, in multiples of the preconditioner."
    )
    decay: float = Field(0.99, ge=0, lt=1, description="Weight of past squared gradients.")
    stability: float = Field(1e-5, gt=0, description="Added to the root of squared gradients.")

    def kernel(self, density: LogDensity) -> PreconditionedSGLD:
        """Build the kernel."""
        return PreconditionedSGLD(density, **self.options())
