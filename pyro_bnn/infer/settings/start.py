"""Table ``[start]`` of a recipe: where chains begin."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from pyro_bnn.infer.settings.base import Table
from pyro_bnn.infer.starting import EnsembleStart, ensemble_start
from pyro_bnn.logdensity import LogDensity

__all__ = ["StartSettings"]


class StartSettings(Table):
    """Draws from the prior, or the optima of an ensemble."""

    source: Literal["prior", "ensemble"] = Field(
        "prior", alias="from", description="Draws from the prior, or optima of an ensemble."
    )
    members: int = Field(
        4, ge=1, description="Optima; a divisor of run.chains. This and the rest: of an ensemble."
    )
    epochs: int = Field(200, ge=1, description="Passes over the data at most.")
    learning_rate: float = Field(0.01, gt=0, description="Adam's.")
    batch_size: int | None = Field(None, ge=1, description="Rows of a step; all data by default.")
    held_out: float = Field(
        0.1, ge=0, le=0.5, description="Share of rows that judge when a member stops."
    )
    patience: int = Field(10, ge=1, description="Epochs without a better one, then it stops.")
    jitter: float = Field(0.0, ge=0, description="Deviation of noise on each chain's start.")

    def positions(
        self, density: LogDensity, num_chains: int, generator: torch.Generator
    ) -> EnsembleStart | None:
        """Optimise the ensemble; None where chains start from the prior."""
        if self.source == "prior":
            return None
        options = self.model_dump(exclude={"source", "members"})
        return ensemble_start(density, self.members, num_chains, generator, **options)
