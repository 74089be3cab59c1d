"""Step size by dual averaging (Hoffman & Gelman 2014, section 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DualAveraging"]

_GAMMA = 0.05
_T0 = 10.0
_KAPPA = 0.75


class DualAveraging(NamedTuple):
    """Drives acceptance rates to a target by moving the logarithm of the step size.

    The tensors are scalars where all chains share a step size, or ``(chain,)``.

    Attributes
    ----------
    mu : Tensor
        Where log step sizes are drawn to; ten times the initial step.
    log_step, log_averaged : Tensor
        The current iterate, and the weighted average that is kept at the end.
    error : Tensor
        Running mean of target minus acceptance.
    updates : Tensor
        Updates made.
    """

    mu: Tensor
    log_step: Tensor
    log_averaged: Tensor
    error: Tensor
    updates: Tensor

    @classmethod
    def start(cls, step_size: Tensor) -> DualAveraging:
        """Begin from a step size."""
        log_step = step_size.log()
        zero = torch.zeros_like(log_step)
        return cls(log_step + math.log(10), log_step, log_step, zero, zero)

    def update(self, acceptance: Tensor, target: float) -> DualAveraging:
        """Take in acceptance rates, pooled over the chains where the step size is."""
        updates = self.updates + 1
        error = self.error + (target - acceptance - self.error) / (updates + _T0)
        log_step = self.mu - updates.sqrt() / _GAMMA * error
        averaged = self.log_averaged + updates**-_KAPPA * (log_step - self.log_averaged)
        return DualAveraging(self.mu, log_step, averaged, error, updates)

    @property
    def current(self) -> Tensor:
        """The step size to try next."""
        return self.log_step.exp()

    @property
    def settled(self) -> Tensor:
        """The step size to keep: a weighted average of those that were tried."""
        return self.log_averaged.exp()
