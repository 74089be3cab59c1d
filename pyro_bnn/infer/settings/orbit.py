"""Table ``[orbit]`` of a recipe: moves along the orbits of the network's symmetries."""

from __future__ import annotations

from pydantic import Field

from pyro_bnn.infer.settings.base import Table

__all__ = ["OrbitSettings"]


class OrbitSettings(Table):
    """How often scales, signs and permutations are drawn anew, without the likelihood."""

    every: int = Field(0, ge=0, description="Steps of the kernel between two moves; 0 for none.")
    sweeps: int = Field(1, ge=1, description="Passes over the scales in one move.")
