"""The ChEES criterion and its ascent (Hoffman, Radul & Sountsov 2021, sections 3.1 and 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import Metric, Trajectory

__all__ = ["LengthAscent", "chees_slope"]

_RATE = 0.1
_SQUARE_DECAY = 0.95


def chees_slope(
    trajectory: Trajectory, centre: Tensor, metric: Metric, acceptance: Tensor
) -> Tensor:
    """Slope of the criterion in the logarithm of the trajectory length: a scalar.

    With q and q' the ends of a trajectory of length t that arrives with velocity v', and m the
    centre, a chain contributes ``t (|q' - m|^2 - |q - m|^2) (q' - m) . v'``, weighted by its
    acceptance rate. Distances are in units of the metric.

    Parameters
    ----------
    trajectory : Trajectory
        Of every chain.
    centre : Tensor
        Posterior means ``(chain, dim)``.
    metric : Metric
        In which the trajectories ran.
    acceptance : Tensor
        ``(chain,)``; a chain with rate zero is left out, whatever its end.
    """
    start = metric.whiten(trajectory.start - centre)
    end = metric.whiten(trajectory.end - centre)
    change = end.square().sum(1) - start.square().sum(1)
    slope = trajectory.length * change * (end * metric.whiten(trajectory.velocity)).sum(1)
    usable = (acceptance > 0) & slope.isfinite()
    weight = torch.where(usable, acceptance, 0)
    return (weight * torch.where(usable, slope, 0)).sum() / weight.sum().clamp(min=1e-10)


class LengthAscent(NamedTuple):
    """Adam without momentum on the logarithm of the mean number of steps.

    At a given step size that is the logarithm of the length, up to a constant; but while the step
    size is still being found, a dip of it makes trajectories short instead of dear.

    Attributes
    ----------
    log_steps, log_averaged : Tensor
        The current iterate, and the weighted average that is kept at the end.
    square : Tensor
        Running mean of squared slopes.
    updates : Tensor
        Updates made.
    """

    log_steps: Tensor
    log_averaged: Tensor
    square: Tensor
    updates: Tensor

    @classmethod
    def begin(cls, mean_steps: Tensor) -> LengthAscent:
        """Begin from a mean number of steps."""
        zero = torch.zeros_like(mean_steps)
        return cls(mean_steps.log(), mean_steps.log(), zero, zero)

    def climb(self, slope: Tensor) -> LengthAscent:
        """Make one step uphill."""
        updates = self.updates + 1
        square = _SQUARE_DECAY * self.square + (1 - _SQUARE_DECAY) * slope**2
        scale = (square / (1 - _SQUARE_DECAY**updates)).sqrt()
        log_steps = self.log_steps + _RATE * slope / scale.clamp(min=1e-30)
        log_steps = log_steps.clamp(min=0.0)
        averaged = self.log_averaged + updates**-0.5 * (log_steps - self.log_averaged)
        return LengthAscent(log_steps, averaged, square, updates)
