"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox & Guestrin 2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.momentum import MomentumKernel
from pyro_bnn.infer.kernels.stochastic_gradient import StochasticState, normal_like
from pyro_bnn.logdensity import LogDensity

__all__ = ["SGHMC"]


class SGHMC(MomentumKernel):
    """Langevin dynamics with momentum over a batch of chains.

    In the parametrisation by learning rate and momentum (Chen et al. 2014, equation 15), a step of
    the velocity is ``v <- (1 - friction) v - h grad U(x) + sqrt(2 (friction - b) h) noise`` with
    ``b = h gradient_noise / 2``, and then ``x <- x + v``. The learning rate h is the square of the
    step of an integrator whose error is of second order: the bias of draws falls in proportion
    to h, with full-data and, at worst, with noisy gradients.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        The learning rate h.
    friction : float
        In (0, 1]: one minus the momentum of stochastic gradient descent. At 1 this is `SGLD`.
    gradient_noise : float
        An estimate of the variance of a minibatch gradient's coordinates, whose heat is left out
        of the noise; 0 by default, as in the studies that use this kernel. The statistic
        ``kinetic_temperature``, 1 where all is well, shows the heat that is left.
    batch_size, schedule, steps_per_draw, control_variates, init_strategy
        See `pyro_bnn.infer.kernels.StochasticGradientKernel`.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 1e-4,
        friction: float = 0.1,
        *,
        gradient_noise: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, step_size, friction, **options)
        if not 0 <= step_size * gradient_noise / 2 <= friction:
            raise UserError(
                f"SGHMC: gradient_noise is {gradient_noise}, give a number between 0 and "
                f"2 friction / step_size = {2 * friction / step_size:g}"
            )
        self.gradient_noise = gradient_noise

    def _move(
        self, state: StochasticState, generator: torch.Generator, *, noisy: bool
    ) -> StochasticState:
        step_size = state.step_size
        velocity = (1 - self.friction) * state.velocity - step_size * state.gradient
        if noisy:
            heat = self.friction - 0.5 * step_size * self.gradient_noise
            velocity = velocity + (2 * heat * step_size).sqrt() * normal_like(velocity, generator)
        return state._replace(position=state.position + velocity, velocity=velocity)
