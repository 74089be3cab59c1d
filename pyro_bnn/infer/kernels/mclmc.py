"""Microcanonical Langevin Monte Carlo, unadjusted (Robnik, De Luca, Silverstein & Seljak 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.first_step_size import search_step_size
from pyro_bnn.infer.adaptation.microcanonical import MicrocanonicalWarmup
from pyro_bnn.infer.kernels.hamiltonian import DIVERGENCE, Density, Info, Metric, unit_metric
from pyro_bnn.infer.kernels.isokinetic import (
    GRADIENTS_PER_STEP,
    draw_direction,
    isokinetic_step,
    partial_refresh,
    refuse_one_dimension,
)
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.logdensity import LogDensity

__all__ = ["MCLMC", "MCLMCState"]


class MCLMCState(NamedTuple):
    """All that the kernel needs to go on.

    Attributes
    ----------
    position, potential, gradient, step_size, metric
        As in `State`.
    direction : Tensor
        Of motion, unit vectors ``(chain, dim)`` in the metric's units.
    length : Tensor
        Path over which the direction is forgotten, a scalar in the metric's units.
    """

    position: Tensor
    potential: Tensor
    gradient: Tensor
    step_size: Tensor
    metric: Metric
    direction: Tensor
    length: Tensor


class MCLMC(Kernel):
    """Motion at unit speed, turned by the gradient and by a little noise at every step.

    Nothing is rejected, so that the draws have a bias that falls with the square of the step
    size; `energy_variance`, the mean squared energy error of a step per dimension, controls it.
    A step that ends in no number, or with an energy error beyond 1000, is taken back and counts
    as a divergence. A draw is kept every `steps_per_draw` steps.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model with at least two latent numbers.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    length : float, optional
        Path over which the direction is forgotten, in units of the metric; the square root of
        the dimension by default. It is set anew at the end of warm-up unless `adapt_length` is
        False.
    steps_per_draw : int
        Steps between two draws, of two gradients each.
    energy_variance : float
        Energy variance per dimension that the step size aims at; 5e-4 in the paper.
    adapt_step_size, adapt_length, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the preconditioner is dense.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.

    Raises
    ------
    UserError
        If an option is out of range; by `init`, if there is only one latent number.
    """

    state_type = MCLMCState

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        length: float | None = None,
        steps_per_draw: int = 5,
        energy_variance: float = 5e-4,
        adapt_step_size: bool = True,
        adapt_length: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(model, init_strategy=init_strategy, **pyro_only)
        for name, value in (
            ("step_size", step_size),
            ("length", 1.0 if length is None else length),
            ("energy_variance", energy_variance),
        ):
            if value <= 0:
                raise UserError(f"MCLMC: {name} is {value}, give a number > 0")
        if steps_per_draw < 1:
            raise UserError(f"MCLMC: steps_per_draw is {steps_per_draw}, give at least 1")
        self.step_size = step_size
        self.length = length
        self.steps_per_draw = steps_per_draw
        self.energy_variance = energy_variance
        self.adapt_step_size = adapt_step_size
        self.adapt_length = adapt_length
        self.adapt_mass_matrix = adapt_mass_matrix
        self.full_mass = full_mass

    def init(self, position: Tensor, density: Density, generator: torch.Generator) -> MCLMCState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        refuse_one_dimension(position, "MCLMC")
        potential, gradient = density.value_and_grad(position)
        length = math.sqrt(position.shape[1]) if self.length is None else self.length
        return MCLMCState(
            position,
            potential,
            gradient,
            position.new_tensor(self.step_size),
            unit_metric(position, dense=self.full_mass),
            draw_direction(position, generator),
            position.new_tensor(length),
        )

    def step(
        self, state: MCLMCState, density: Density, generator: torch.Generator
    ) -> tuple[MCLMCState, Info]:
        """Make the steps between two draws."""
        root = state.metric.unwhitening()
        decoherence = state.step_size / state.length
        position, direction = state.position, state.direction
        potential, gradient = state.potential, state.gradient
        failures = torch.zeros_like(potential)
        squares = torch.zeros_like(potential)
        for _ in range(self.steps_per_draw):
            moved = isokinetic_step(position, direction, gradient, density, state.step_size, root)
            error = moved[2] - potential + moved[4]
            good = error.abs() < DIVERGENCE
            position = torch.where(good[:, None], moved[0], position)
            # A chain that meets a wall turns back.
            direction = torch.where(good[:, None], moved[1], -direction)
            potential = torch.where(good, moved[2], potential)
            gradient = torch.where(good[:, None], moved[3], gradient)
            direction = partial_refresh(direction, decoherence, generator)
            failures = failures + ~good
            squares = squares + torch.where(good, error**2, torch.inf)
        new = state._replace(
            position=position, potential=potential, gradient=gradient, direction=direction
        )
        made = self.steps_per_draw
        stats: dict[str, Tensor] = {
            "lp": -potential,
            "acceptance_rate": 1 - failures / made,
            "diverging": failures > 0,
            "energy_variance": squares / made / position.shape[1],
            "n_steps": torch.full_like(potential, made, dtype=torch.int32),
            "step_size": state.step_size.expand(potential.shape),
        }
        return new, Info(stats, GRADIENTS_PER_STEP * made)

    def warmup(self, num_steps: int) -> MicrocanonicalWarmup:
        """Return the adaptation of step size, length and preconditioner over `num_steps` draws."""
        return MicrocanonicalWarmup(
            num_steps,
            adapt_step_size=self.adapt_step_size,
            adapt_length=self.adapt_length,
            adapt_mass_matrix=self.adapt_mass_matrix,
            wanted=self.energy_variance,
            steps_per_draw=self.steps_per_draw,
            find_step_size=self._reasonable_step_size,
        )

    def _reasonable_step_size(
        self, state: MCLMCState, density: Density, generator: torch.Generator
    ) -> Tensor:
        """Double or halve step sizes until one step has the energy error that is wanted."""
        root = state.metric.unwhitening()
        wanted = self.energy_variance * state.position.shape[1]

        def rate(step_size: Tensor) -> Tensor:
            _, _, potential, _, kinetic = isokinetic_step(
                state.position, state.direction, state.gradient, density, step_size, root
            )
            small = (potential - state.potential + kinetic) ** 2 < wanted
            return torch.where(state.potential.isnan(), torch.nan, small.to(potential))

        return search_step_size(state.step_size, rate)
