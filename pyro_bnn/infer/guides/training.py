"""How a guide is trained: optimiser, learning rate, minibatches. What it minimises is its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_bnn.errors import UserError

__all__ = ["OPTIMISERS", "PRECISIONS", "SCHEDULES", "Training"]

_RISE = 0.3

PRECISIONS: dict[str, torch.dtype | None] = {
    "full": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""What the model computes in, by name."""


@dataclass(frozen=True)
class Training:
    """Settings of stochastic gradient descent on the loss per row of data.

    The loss is minus the log posterior over the number of rows, so the prior is the weight decay:
    a normal prior of deviation s on n rows decays weights by ``1 / (s**2 n)``.

    Attributes
    ----------
    epochs : int
        Passes over the data.
    batch_size : int, optional
        Rows of a step; all of them by default. Rows that do not fill a batch are left out of
        their epoch, as in ``drop_last``: each epoch has an order of its own.
    optimiser : str
        ``"sgd"``, ``"adam"`` (Kingma & Ba 2015) or ``"adamw"`` (Loshchilov & Hutter 2019), where
        the pull of the prior goes to the weights directly instead of through Adam's moments.
    learning_rate : float
        The first one.
    momentum : float
        Of ``sgd``.
    least_momentum : float, optional
        Of ``sgd`` with ``one-cycle``: what the momentum falls to while the rate rises, to come back
        as that falls (Smith & Topin 2019); it stays as it is by default.
    nesterov : bool
        Whether that momentum is Nesterov's.
    schedule : str
        ``"constant"``; ``"step"``, which multiplies the rate by `decay` at each of the
        `milestones`; ``"cosine"``, which takes it to zero at the end; or ``"one-cycle"``, which
        first raises it from a 25th, for three tenths of the training (Smith & Topin 2019).
    milestones : tuple of float
        Where ``step`` steps, as shares of the training.
    decay : float
        Factor of each such step.
    clip_norm : float, optional
        The gradient of each member's loss a row is shortened to this Euclidean norm where it is
        longer (Pascanu et al. 2013); never by default.
    accumulate : int
        Minibatches whose gradients are averaged for a step. Those that fill none at the end of
        an epoch are left out.
    precision : str
        ``"full"``, or that of `torch.autocast`: ``"bfloat16"``, or ``"float16"`` on a GPU, where
        the scale N / B of the likelihood keeps small gradients from becoming zero.
    loaders : int
        Processes that fetch augmented rows; 0 for none beside the training's own.

    Raises
    ------
    UserError
        If a name is unknown, in which case it lists the known ones, or a number out of range.

    Examples
    --------
    >>> training = Training(epochs=10, schedule="step", learning_rate=0.1)
    >>> [round(training.rate(share), 3) for share in (0.0, 0.4, 0.9)]
    [0.1, 0.01, 0.001]
    """

    epochs: int = 100
    batch_size: int | None = 128
    optimiser: str = "adam"
    learning_rate: float = 0.01
    momentum: float = 0.9
    least_momentum: float | None = None
    nesterov: bool = False
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    decay: float = 0.1
    clip_norm: float | None = None
    accumulate: int = 1
    precision: str = "full"
    loaders: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimiser", self.optimiser, list(OPTIMISERS)),
            ("schedule", self.schedule, list(SCHEDULES)),
            ("precision", self.precision, list(PRECISIONS)),
        ):
            if value not in known:
                listed = ", ".join(map(repr, known))
                raise UserError(f"Training: {name} {value!r} is unknown; known are {listed}")
        for name, number, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 1),
            ("accumulate", self.accumulate, 1),
            ("loaders", self.loaders, 0),
        ):
            if number is not None and number < least:
                raise UserError(f"Training: {name} is {number}, give at least {least}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"Training: clip_norm is {self.clip_norm}, give a number > 0")
        if not self.learning_rate > 0:
            raise UserError(f"Training: learning_rate is {self.learning_rate}, give a number > 0")
        if not 0 <= self.momentum < 1:
            raise UserError(f"Training: momentum is {self.momentum}, give a number in [0, 1)")
        if self.least_momentum is not None:
            if self.schedule != "one-cycle" or self.optimiser != "sgd":
                raise UserError(
                    "Training: least_momentum needs the optimiser 'sgd' and the schedule "
                    "'one-cycle'"
                )
            if not 0 < self.least_momentum <= self.momentum:
                raise UserError(
                    f"Training: least_momentum is {self.least_momentum}, give a number above 0 and "
                    f"at most the momentum, {self.momentum}"
                )
        if self.nesterov and (self.momentum == 0 or self.optimiser != "sgd"):
            raise UserError("Training: nesterov needs the optimiser 'sgd' with a momentum")

    @property
    def decoupled(self) -> bool:
        """Whether the pull of the prior bypasses the optimiser."""
        return self.optimiser == "adamw"

    def rate(self, share: float) -> float:
        """Return the learning rate when `share` of the training is done."""
        return self.learning_rate * SCHEDULES[self.schedule](self, share)

    def momentum_at(self, share: float) -> float:
        """Return the momentum when `share` of the training is done."""
        if self.least_momentum is None:
            return self.momentum
        return self.momentum - (self.momentum - self.least_momentum) * _raised(share)

    def build(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Build the optimiser: elementwise, so that stacked members do not see each other."""
        return OPTIMISERS[self.optimiser](self, parameters)


def _sgd(training: Training, parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        fused=True,
    )


def _adam(training: Training, parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=training.learning_rate, fused=True)


def _raised(share: float) -> float:
    """How far one cycle is up: from 0 to 1 and back, along two halves of a cosine."""
    if share < _RISE:
        return 0.5 * (1 - math.cos(math.pi * share / _RISE))
    return 0.5 * (1 + math.cos(math.pi * (min(share, 1.0) - _RISE) / (1 - _RISE)))


def _one_cycle(training: Training, share: float) -> float:
    raised = _raised(share)
    return 0.04 + 0.96 * raised if share < _RISE else raised


def _step(training: Training, share: float) -> float:
    return training.decay ** sum(share >= milestone for milestone in training.milestones)


OPTIMISERS: dict[str, Callable[[Training, list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
}
"""Optimisers by name."""

SCHEDULES: dict[str, Callable[[Training, float], float]] = {
    "constant": lambda training, share: 1.0,
    "step": _step,
    "cosine": lambda training, share: 0.5 * (1 + math.cos(math.pi * share)),
    "one-cycle": _one_cycle,
}
"""Factor of the learning rate as a function of the share of the training done, by name."""
