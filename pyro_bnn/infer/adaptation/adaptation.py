"""What a run asks of warm-up, and the warm-up of kernels that adapt nothing."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import Density, Info

__all__ = ["Adaptation", "NoAdaptation"]


class Adaptation(Protocol):
    """Learns from each step of warm-up and changes the state that the next one starts from."""

    def begin(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        """Prepare the first state of warm-up."""
        ...

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Learn from one step of all chains; return the state to go on from."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to go on, under names that begin with ``warmup.``."""
        ...

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from what `tensors` returned."""
        ...


class NoAdaptation:
    """Warm-up as burn-in alone: steps that are made and not kept."""

    def begin(self, state: Any, density: Density, generator: torch.Generator) -> Any:
        """Return the state as it is."""
        return state

    def update(self, state: Any, info: Info, density: Density, generator: torch.Generator) -> Any:
        """Return the state as it is."""
        return state

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Take nothing."""
