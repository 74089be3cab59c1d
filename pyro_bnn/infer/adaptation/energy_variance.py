"""Step size of unadjusted dynamics by the variance of its energy error (Robnik et al. 2023)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["EnergyVariance"]

_ORDER = 6
_TRUST = 1.5
_MEMORY = 10


class EnergyVariance(NamedTuple):
    """Weighted averages that predict the step size at which the variance is as wanted.

    The squared energy error of a step grows with the sixth power of its size. Each observation
    predicts a size; those far from the wanted variance count less.

    Attributes
    ----------
    step_size : Tensor
        The current prediction: a scalar, or ``(chain,)``.
    ratios, weights : Tensor
        Decaying sums of weighted ratios, variance over wanted variance over step size to the
        sixth power, and of their weights. Ratios are relative to `unit`.
    unit : Tensor
        The step size at the start, so that sixth powers stay within float32.
    """

    step_size: Tensor
    ratios: Tensor
    weights: Tensor
    unit: Tensor

    @classmethod
    def start(cls, step_size: Tensor) -> EnergyVariance:
        """Begin from a step size."""
        zero = torch.zeros_like(step_size)
        return cls(step_size, zero, zero, step_size)

    def update(self, variance: Tensor, wanted: float) -> EnergyVariance:
        """Take in energy variances per dimension, of the shape of the step size.

        A variance that is not finite halves the step.
        """
        finite = variance.isfinite()
        ratio = torch.where(finite, variance / wanted, 1.0) + 1e-8
        weight = torch.exp(-0.5 * (ratio.log() / (_ORDER * _TRUST)) ** 2) * finite
        decay = (_MEMORY - 1) / (_MEMORY + 1)
        relative = self.step_size / self.unit
        ratios = decay * self.ratios + weight * ratio / relative**_ORDER
        weights = decay * self.weights + weight
        known = weights > 0
        predicted = torch.where(known, ratios, 1.0) / torch.where(known, weights, 1.0)
        change = predicted ** (-1 / _ORDER) / relative
        # One surprising observation does not move the step by more than a factor two.
        change = torch.where(known, change, 1.0).clamp(0.5, 2.0)
        change = torch.where(finite, change, 0.5)
        return EnergyVariance(self.step_size * change, ratios, weights, self.unit)

    @property
    def current(self) -> Tensor:
        """The step size to try next."""
        return self.step_size

    @property
    def settled(self) -> Tensor:
        """The step size to keep: the same."""
        return self.step_size
