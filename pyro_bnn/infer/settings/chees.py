"""Settings of ChEES-HMC."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.chees import ChEES
from pyro_bnn.infer.settings.base import HamiltonianSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["ChEESSettings"]

_LEARNED = 45
"""Mean number of leapfrog steps on the digits, warm-up included."""


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

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain; where the number is learned, those of networks.

        `benchmarks/default_recipe.py` prints what it was.
        """
        return _LEARNED if self.adapt_num_steps else round(self.num_steps)

    @property
    def least_chains(self) -> int:
        """Chains that have to move together."""
        return 2

    def kernel(self, density: LogDensity) -> ChEES:
        """Build the kernel."""
        return ChEES(density, **self.model_dump(exclude={"name"}))
