"""Step size by dual averaging (Hoffman & Gelman 2014, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DualAveraging"]


@dataclass
class DualAveraging:
    """Drive the mean acceptance rate to a target by moving the logarithm of the step size.

    Attributes
    ----------
    target : float
        Acceptance rate to reach.
    mu : float
        Where log step sizes are drawn to; ten times the initial step.
    log_step, log_averaged : float
        The current iterate, and the weighted average that is kept at the end.
    error : float
        Running mean of target minus acceptance.
    count : int
        Updates made.
    """

    target: float
    mu: float = 0.0
    log_step: float = 0.0
    log_averaged: float = 0.0
    error: float = 0.0
    count: int = 0

    gamma = 0.05
    t0 = 10.0
    kappa = 0.75

    def restart(self, step_size: float) -> None:
        """Begin again from a step size."""
        self.mu = math.log(10 * step_size)
        self.log_step = math.log(step_size)
        self.log_averaged = math.log(step_size)
        self.error = 0.0
        self.count = 0

    def update(self, acceptance: float) -> float:
        """Take in one acceptance rate, pooled over the chains; return the next step size."""
        self.count += 1
        weight = 1 / (self.count + self.t0)
        self.error += weight * (self.target - acceptance - self.error)
        self.log_step = self.mu - math.sqrt(self.count) / self.gamma * self.error
        forget = self.count**-self.kappa
        self.log_averaged += forget * (self.log_step - self.log_averaged)
        return math.exp(self.log_step)

    @property
    def averaged(self) -> float:
        """Step size to sample with."""
        return math.exp(self.log_averaged)
