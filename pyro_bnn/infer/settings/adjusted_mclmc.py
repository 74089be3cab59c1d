"""Settings of Metropolis-adjusted microcanonical sampling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.adjusted_mclmc import AdjustedMCLMC
from pyro_bnn.infer.kernels.isokinetic import GRADIENTS_PER_STEP
from pyro_bnn.infer.settings.base import HamiltonianSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["AdjustedMCLMCSettings"]


class AdjustedMCLMCSettings(HamiltonianSettings):
    """Table ``[kernel]`` of a recipe with ``name = "adjusted-mclmc"``."""

    name: Literal["adjusted-mclmc"] = Field(
        "adjusted-mclmc", description="Microcanonical trajectories, accepted or rejected."
    )
    num_steps: float = Field(5.0, ge=1, description="First mean number of steps.")
    adapt_num_steps: bool = Field(True, description="Adapt the mean number of steps.")
    target_accept_prob: float = Field(
        0.9, gt=0, lt=1, description="Harmonic mean acceptance rate that the step aims at."
    )

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain, as far as the settings tell; else one."""
        return 1 if self.adapt_num_steps else GRADIENTS_PER_STEP * round(self.num_steps)

    def kernel(self, density: LogDensity) -> AdjustedMCLMC:
        """Build the kernel."""
        return AdjustedMCLMC(density, **self.model_dump(exclude={"name"}))
