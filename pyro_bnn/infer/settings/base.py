"""What the settings of all kernels share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.logdensity import LogDensity

__all__ = ["HamiltonianSettings", "KernelSettings", "Table"]


class Table(BaseModel):
    """A table of a recipe: no key that it does not know, finite numbers, no change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KernelSettings(Table):
    """Table ``[kernel]``: a name, which chooses the kernel, and the kernel's own keys."""

    name: str

    @property
    def expected_gradients(self) -> int:
        """Gradients that a step costs each chain, as far as the settings tell; else one."""
        return 1

    @property
    def least_chains(self) -> int:
        """Chains that have to move together."""
        return 1

    def kernel(self, density: LogDensity) -> Kernel:
        """Build the kernel."""
        raise NotImplementedError


class HamiltonianSettings(KernelSettings):
    """What the kernels with a leapfrog integrator and an accept step share."""

    step_size: float = Field(0.1, gt=0, description="First step size of the leapfrog integrator.")
    adapt_step_size: bool = Field(True, description="Adapt the step size during warm-up.")
    adapt_mass_matrix: bool = Field(True, description="Adapt the mass matrix during warm-up.")
    full_mass: bool = Field(False, description="Dense mass matrix; for up to some 500 weights.")
    target_accept_prob: float = Field(
        0.8, gt=0, lt=1, description="Mean acceptance rate that the step size aims at."
    )
