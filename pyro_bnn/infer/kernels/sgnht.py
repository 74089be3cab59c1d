"""The stochastic-gradient Nose-Hoover thermostat (Ding et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.momentum import MomentumKernel
from pyro_bnn.infer.kernels.stochastic_gradient import StochasticState, normal_like

__all__ = ["SGNHT"]


class SGNHT(MomentumKernel):
    """Langevin dynamics with momentum whose friction keeps the temperature.

    Minibatch gradients heat a system by an amount that nobody knows. Here the friction a of each
    chain rises while the velocity is too hot and falls while it is too cold: in the
    parametrisation by learning rate (Ding et al. 2014, section 3),
    ``v <- (1 - a) v - h grad U(x) + sqrt(2 friction h) noise``, ``x <- x + v`` and
    ``a <- a + (1 - a / 2) mean(v * v) - h``. The factor ``1 - a / 2`` is not in the paper, where a
    falls with the step: the velocity, half a step away from its position, is that much too hot at
    the right temperature of the positions. With it the bias vanishes with h at any friction. The
    state's ``memory`` is a ``(chain, 1)``. The thermostat takes some ``10 / sqrt(h)`` steps to
    settle.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        The learning rate h.
    friction : float
        In (0, 1]: the first friction, and that which the injected noise stands for.
    batch_size, schedule, steps_per_draw, control_variates, init_strategy
        See `pyro_bnn.infer.kernels.StochasticGradientKernel`.
    """

    def _prepare(self, state: StochasticState, generator: torch.Generator) -> StochasticState:
        state = super()._prepare(state, generator)
        return state._replace(memory=torch.full_like(state.velocity[:, :1], self.friction))

    def _move(
        self, state: StochasticState, generator: torch.Generator, *, noisy: bool
    ) -> StochasticState:
        step_size, friction = state.step_size, state.memory
        velocity = (1 - friction) * state.velocity - step_size * state.gradient
        if not noisy:
            # Without noise there is no temperature to keep: the friction waits.
            return state._replace(position=state.position + velocity, velocity=velocity)
        noise = normal_like(velocity, generator)
        velocity = velocity + (2 * self.friction * step_size).sqrt() * noise
        energy = (1 - friction / 2) * velocity.square().mean(1, keepdim=True)
        friction = friction + energy - step_size
        return state._replace(
            position=state.position + velocity, velocity=velocity, memory=friction
        )

    def _own_stats(self, state: StochasticState) -> dict[str, Tensor]:
        return {**super()._own_stats(state), "friction": self._current_friction(state)}

    def _current_friction(self, state: StochasticState) -> Tensor:
        return state.memory.squeeze(1)
