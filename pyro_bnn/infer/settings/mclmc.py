"""Settings of unadjusted microcanonical Langevin Monte Carlo."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.isokinetic import GRADIENTS_PER_STEP
from pyro_bnn.infer.kernels.mclmc import MCLMC
from pyro_bnn.infer.settings.base import KernelSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["MCLMCSettings"]


class MCLMCSettings(KernelSettings):
    """Table ``[kernel]`` of a recipe with ``name = "mclmc"``."""

    name: Literal["mclmc"] = Field(
        "mclmc", description="Microcanonical Langevin Monte Carlo, unadjusted."
    )
    step_size: float = Field(0.1, gt=0, description="First step size of the integrator.")
    length: float | None = Field(
        None, gt=0, description="Path over which the direction is forgotten; sqrt(dim) at first."
    )
    steps_per_draw: int = Field(5, ge=1, description="Steps between two draws.")
    energy_variance: float = Field(
        5e-4, gt=0, description="Energy variance per dimension that the step size aims at."
    )
    adapt_step_size: bool = Field(True, description="Adapt the step size during warm-up.")
    adapt_length: bool = Field(True, description="Adapt the length during warm-up.")
    adapt_mass_matrix: bool = Field(True, description="Adapt the mass matrix during warm-up.")
    full_mass: bool = Field(False, description="Dense mass matrix; for up to some 500 weights.")

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain, as far as the settings tell; else one."""
        return GRADIENTS_PER_STEP * self.steps_per_draw

    def kernel(self, density: LogDensity) -> MCLMC:
        """Build the kernel."""
        return MCLMC(density, **self.model_dump(exclude={"name"}))
