"""Settings of the no-U-turn sampler."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pyro_bnn.infer.kernels.nuts import NUTS
from pyro_bnn.infer.settings.base import HamiltonianSettings
from pyro_bnn.logdensity import LogDensity

__all__ = ["NUTSSettings"]


class NUTSSettings(HamiltonianSettings):
    """Table ``[kernel]`` of a recipe with ``name = "nuts"``."""

    name: Literal["nuts"] = Field("nuts", description="The no-U-turn sampler.")
    max_tree_depth: int = Field(10, ge=1, description="At most 2**depth - 1 leapfrog steps.")

    def kernel(self, density: LogDensity) -> NUTS:
        """Build the kernel."""
        return NUTS(density, **self.model_dump(exclude={"name"}))
