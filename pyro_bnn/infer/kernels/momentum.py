"""The base of stochastic-gradient kernels with a velocity and a friction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.schedules import Schedule
from pyro_bnn.infer.kernels.stochastic_gradient import (
    StochasticGradientKernel,
    StochasticState,
    normal_like,
)
from pyro_bnn.logdensity import LogDensity

__all__ = ["MomentumKernel"]


class MomentumKernel(StochasticGradientKernel):
    """A stochastic-gradient kernel whose state has a velocity.

    Parameters
    ----------
    friction : float
        In (0, 1]: one minus the momentum of stochastic gradient descent.
    model, step_size, batch_size, schedule, steps_per_draw, control_variates, init_strategy
        See `pyro_bnn.infer.kernels.StochasticGradientKernel`.

    Raises
    ------
    UserError
        If an option is unknown or out of range.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 1e-4,
        friction: float = 0.1,
        batch_size: int | None = None,
        schedule: Schedule | None = None,
        steps_per_draw: int = 1,
        control_variates: bool = False,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            batch_size=batch_size,
            schedule=schedule,
            steps_per_draw=steps_per_draw,
            control_variates=control_variates,
            init_strategy=init_strategy,
            **pyro_only,
        )
        if not 0 < friction <= 1:
            name = type(self).__name__
            raise UserError(f"{name}: friction is {friction}, give a number in (0, 1]")
        self.friction = friction

    def _prepare(self, state: StochasticState, generator: torch.Generator) -> StochasticState:
        """Draw the first velocity ``(chain, dim)``."""
        noise = normal_like(state.position, generator)
        return state._replace(velocity=state.step_size.sqrt() * noise)

    def _own_stats(self, state: StochasticState) -> dict[str, Tensor]:
        """Return the temperature of the velocities, 1 where all is well."""
        share = 1 - self._current_friction(state) / 2
        temperature = share * state.velocity.square().mean(1) / state.step_size
        return {"kinetic_temperature": temperature}

    def _current_friction(self, state: StochasticState) -> Tensor | float:
        """Return the friction, a number or ``(chain,)``."""
        return self.friction
