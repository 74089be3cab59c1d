"""Draws on their way to the trace: a preallocated block, filled in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["DrawBlock"]


class DrawBlock:
    """Room for a fixed number of draws of all chains.

    Parameters
    ----------
    capacity : int
        Draws that fit.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._posterior: dict[str, Tensor] = {}
        self._stats: dict[str, Tensor] = {}

    @property
    def full(self) -> bool:
        """Whether the next draw would not fit."""
        return self.length == self.capacity

    def append(self, posterior: Mapping[str, Tensor], stats: Mapping[str, Tensor]) -> None:
        """Take in one draw: every value ``(chain, *shape)``."""
        for store, values in ((self._posterior, posterior), (self._stats, stats)):
            for name, value in values.items():
                if name not in store:
                    shape = (value.shape[0], self.capacity, *value.shape[1:])
                    store[name] = torch.empty(shape, dtype=value.dtype, device=value.device)
                store[name][:, self.length] = value
        self.length += 1

    def posterior(self) -> dict[str, Tensor]:
        """Draws of every site, ``(chain, draw, *shape)``."""
        return {name: value[:, : self.length] for name, value in self._posterior.items()}

    def stats(self) -> dict[str, Tensor]:
        """Statistics of every draw, ``(chain, draw)``."""
        return {name: value[:, : self.length] for name, value in self._stats.items()}

    def clear(self) -> None:
        """Make room again; what was handed out before is overwritten by later draws."""
        self.length = 0
