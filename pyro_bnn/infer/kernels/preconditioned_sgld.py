"""Stochastic-gradient Langevin dynamics with RMSprop's preconditioner (Li et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.stochastic_gradient import (
    StochasticGradientKernel,
    StochasticState,
    normal_like,
)
from pyro_bnn.logdensity import LogDensity

__all__ = ["PreconditionedSGLD"]


class PreconditionedSGLD(StochasticGradientKernel):
    """Langevin dynamics whose step in each coordinate is scaled by the gradients seen there.

    With V the running mean of squared gradients and G = 1 / (stability + sqrt(V)), a step is
    ``x - h G grad U(x) + sqrt(2 h G) noise`` (Li et al. 2016, algorithm 1). The state's ``memory``
    is V ``(chain, dim)``; it starts at the square of the first gradient.

    The exact dynamics has a further drift, ``Gamma_i = sum_j dG_ij / dx_j``. As in the paper's
    algorithm it is left out: only the newest of the gradients in V depends on x, so that it is of
    order ``1 - decay``, and its bias (the paper's corollary 2) does not vanish with the step size.
    The paper takes V of the gradient of the mean log posterior over n data; here it is that of the
    sum, as in Izmailov et al. 2021, so that h is n / 2 times the paper's epsilon.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        The learning rate h, in multiples of the preconditioner.
    decay : float
        Weight of the past in V.
    stability : float
        Keeps G finite where gradients vanish.
    batch_size, schedule, steps_per_draw, control_variates, init_strategy
        See `pyro_bnn.infer.kernels.StochasticGradientKernel`.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 1e-2,
        *,
        decay: float = 0.99,
        stability: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(model, step_size, **options)
        if not 0 <= decay < 1:
            raise UserError(f"PreconditionedSGLD: decay is {decay}, give a number in [0, 1)")
        if stability <= 0:
            raise UserError(f"PreconditionedSGLD: stability is {stability}, give a number > 0")
        self.decay = decay
        self.stability = stability

    def _prepare(self, state: StochasticState, generator: torch.Generator) -> StochasticState:
        return state._replace(memory=state.gradient.square())

    def _move(
        self, state: StochasticState, generator: torch.Generator, *, noisy: bool
    ) -> StochasticState:
        squares = torch.lerp(state.gradient.square(), state.memory, self.decay)
        step_size: Tensor = state.step_size / (self.stability + squares.sqrt())
        position = state.position - step_size * state.gradient
        if noisy:
            position = position + (2 * step_size).sqrt() * normal_like(position, generator)
        return state._replace(position=position, memory=squares)
