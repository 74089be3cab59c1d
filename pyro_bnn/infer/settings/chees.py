"""Settings of ChEES-HMC."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.chees import ChEES
from pyro_bnn.infer.settings.base import HamiltonianSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["ChEESSettings"]


class ChEESSettings(HamiltonianSettings):
    """Table ``[kernel]`` of a recipe with ``name = "chees"``."""

    name: Literal["chees"] = Field(
        "chees", description="Hamiltonian Monte Carlo, trajectory length learned across chains."
    )
    num_steps: float = Field(10.0, ge=1, description="First mean number of leapfrog steps.")
    adapt_num_steps: bool = Field(True, description="Adapt the mean number of steps.")
    target_accept_prob: float = Field(
        0.651, gt=0, lt=1, description="Harmonic mean acceptance rate that the step aims at."
    )

    def kernel(self, density: LogDensity) -> ChEES:
        """Build the kernel."""
        return ChEES(density, **self.model_dump(exclude={"name"}))
