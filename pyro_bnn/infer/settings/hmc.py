"""Settings of Hamiltonian Monte Carlo."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.hmc import HMC
from pyro_bnn.infer.settings.base import HamiltonianSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["HMCSettings"]


class HMCSettings(HamiltonianSettings):
    """Table ``[kernel]`` of a recipe with ``name = "hmc"``."""

    name: Literal["hmc"] = Field("hmc", description="Hamiltonian Monte Carlo.")
    num_steps: int | None = Field(None, ge=1, description="Leapfrog steps of a draw.")
    trajectory_length: float | None = Field(
        None, gt=0, description="Length of a trajectory, instead of num_steps; 2 pi by default."
    )
    jitter: float = Field(
        0.0, ge=0, lt=1, description="Relative spread of the number of steps from draw to draw."
    )

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain, as far as the settings tell; else one."""
        if self.num_steps is None and not self.adapt_step_size:
            return max(1, round((self.trajectory_length or 2 * math.pi) / self.step_size))
        return self.num_steps or 1

    def kernel(self, density: LogDensity) -> HMC:
        """Build the kernel."""
        return HMC(density, **self.model_dump(exclude={"name"}))
