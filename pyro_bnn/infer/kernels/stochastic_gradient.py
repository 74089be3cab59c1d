"""The base of stochastic-gradient kernels: minibatches, schedules and control variates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.hamiltonian import Density, Info
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.infer.kernels.schedules import Constant, Cyclical, Schedule
from pyro_bnn.logdensity import LogDensity

__all__ = ["Centre", "StochasticGradientKernel", "StochasticState"]


class Centre(NamedTuple):
    """Where control variates are exact: a point of each chain and the full-data values there.

    Attributes
    ----------
    position, gradient : Tensor
        ``(chain, dim)``; no columns without control variates.
    potential : Tensor
        ``(chain,)``.
    """

    position: Tensor
    gradient: Tensor
    potential: Tensor


class StochasticState(NamedTuple):
    """All that a stochastic-gradient kernel needs to go on.

    Attributes
    ----------
    position : Tensor
        Unconstrained positions ``(chain, dim)``.
    potential : Tensor
        Minibatch estimates of the potential energy at the positions, ``(chain,)``.
    gradient : Tensor
        Minibatch estimates of its gradient, ``(chain, dim)``.
    rows : Tensor
        The minibatch of each chain, ``(chain, batch)``; no columns where it is all data.
    step_size : Tensor
        Step size of the last step, a scalar.
    steps : Tensor
        Steps made since the start of the run, warm-up included.
    centre : Centre
        Of the control variates.
    velocity : Tensor
        ``(chain, dim)``; no columns for kernels without momentum.
    memory : Tensor
        What else a kernel carries from step to step, ``(chain, ...)``: its file says what.
    """

    position: Tensor
    potential: Tensor
    gradient: Tensor
    rows: Tensor
    step_size: Tensor
    steps: Tensor
    centre: Centre
    velocity: Tensor
    memory: Tensor


class StochasticGradientKernel(Kernel):
    """A kernel that follows noisy gradients and never rejects.

    Each chain estimates the gradient from a minibatch of its own, drawn with replacement. As no
    step is rejected, draws are biased by an amount that falls with the step size, and warm-up is
    burn-in: nothing is adapted. In the statistics ``lp`` is the minibatch estimate at the draw,
    ``acceptance_rate`` is 1, ``diverging`` says that the draw, its potential energy or its gradient
    is not finite, and a minibatch gradient counts as a gradient.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model, or its log density where that has been built already.
    step_size : float
        First step size, of the schedule's largest step.
    batch_size : int, optional
        Rows of a minibatch; all data by default.
    schedule : Schedule, optional
        `pyro_bnn.infer.Constant` by default, or `pyro_bnn.infer.PolynomialDecay` or
        `pyro_bnn.infer.Cyclical`.
    steps_per_draw : int
        Steps that make one draw.
    control_variates : bool
        Estimate only the difference to the gradient at a centre, where the full-data gradient is
        computed once (Baker et al. 2019). The centre of a chain is where it starts, which has to be
        near a mode to be of use. A step costs two minibatch gradients.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.
    **pyro_only
        See `Kernel`.

    Raises
    ------
    UserError
        If an option is unknown or out of range.
    """

    state_type = StochasticState

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 1e-4,
        batch_size: int | None = None,
        schedule: Schedule | None = None,
        steps_per_draw: int = 1,
        control_variates: bool = False,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(model, init_strategy=init_strategy, **pyro_only)
        name = type(self).__name__
        if step_size <= 0:
            raise UserError(f"{name}: step_size is {step_size}, give a number > 0")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"{name}: batch_size is {batch_size}, give at least 1")
        if steps_per_draw < 1:
            raise UserError(f"{name}: steps_per_draw is {steps_per_draw}, give at least 1")
        if control_variates and batch_size is None:
            raise UserError(f"{name}: control_variates need a batch_size: give both")
        if isinstance(schedule, Cyclical) and schedule.sampling < steps_per_draw:
            raise UserError(
                f"{name}: steps_per_draw is {steps_per_draw} but the sampling stage of a cycle has "
                f"{schedule.sampling} steps: make cycle_steps larger or exploration smaller"
            )
        self.step_size = step_size
        self.batch_size = batch_size
        self.schedule: Schedule = Constant() if schedule is None else schedule
        self.steps_per_draw = steps_per_draw
        self.control_variates = control_variates

    @property
    def rows_of_a_step(self) -> int | None:
        """Rows of a minibatch."""
        return self.batch_size

    def init(
        self, position: Tensor, density: Density, generator: torch.Generator
    ) -> StochasticState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        nothing = position.new_empty((len(position), 0))
        centre = Centre(nothing, nothing, position.new_zeros(len(position)))
        if self.control_variates:
            potential, gradient = density.value_and_grad(position)
            centre = Centre(position, gradient, potential)
        rows = self._draw_rows(position, density, generator)
        potential, gradient = _estimate(position, rows, centre, density)
        state = StochasticState(
            position=position,
            potential=potential,
            gradient=gradient,
            rows=rows,
            step_size=position.new_tensor(self.step_size * self.schedule.factor(0)),
            steps=torch.zeros((), dtype=torch.int64, device=position.device),
            centre=centre,
            velocity=nothing,
            memory=nothing,
        )
        return self._prepare(state, generator)

    def step(
        self, state: StochasticState, density: Density, generator: torch.Generator
    ) -> tuple[StochasticState, Info]:
        """Go on to the next draw."""
        first = count = int(state.steps)
        drawn = False
        while not drawn:
            step_size = state.position.new_tensor(self.step_size * self.schedule.factor(count))
            state = state._replace(step_size=step_size)
            state = self._move(state, generator, noisy=self.schedule.is_noisy(count))
            rows = self._draw_rows(state.position, density, generator)
            potential, gradient = _estimate(state.position, rows, state.centre, density)
            state = state._replace(potential=potential, gradient=gradient, rows=rows)
            drawn = self.schedule.ends_draw(count, self.steps_per_draw)
            count += 1
        state = state._replace(steps=state.steps + (count - first))
        finite = (state.position.isfinite() & state.gradient.isfinite()).all(1)
        stats = {
            "lp": -state.potential,
            "acceptance_rate": torch.ones_like(state.potential),
            "diverging": ~(finite & state.potential.isfinite()),
            "n_steps": torch.full_like(state.potential, count - first, dtype=torch.int32),
            "step_size": state.step_size.expand(state.potential.shape),
            **self._own_stats(state),
        }
        return state, Info(stats, (count - first) * (2 if self.control_variates else 1))

    def moved(self, state: StochasticState, position: Tensor, density: Density) -> StochasticState:
        """Put the chains elsewhere ``(chain, dim)``; all else that they carry stays."""
        potential, gradient = _estimate(position, state.rows, state.centre, density)
        return state._replace(position=position, potential=potential, gradient=gradient)

    # What the algorithms differ in

    def _prepare(self, state: StochasticState, generator: torch.Generator) -> StochasticState:
        """Fill in the velocity and the memory of a first state."""
        return state

    @abstractmethod
    def _move(
        self, state: StochasticState, generator: torch.Generator, *, noisy: bool
    ) -> StochasticState:
        """Make one step along ``state.gradient`` with ``state.step_size``."""

    def _own_stats(self, state: StochasticState) -> dict[str, Tensor]:
        """Return further statistics of a draw."""
        return {}

    def _draw_rows(self, position: Tensor, density: Density, generator: torch.Generator) -> Tensor:
        if self.batch_size is None:
            return torch.empty((len(position), 0), dtype=torch.int64, device=position.device)
        return torch.randint(
            _rows_of(density),
            (len(position), self.batch_size),
            generator=generator,
            device=position.device,
        )


def normal_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise of the shape of `value`."""
    return torch.randn(value.shape, dtype=value.dtype, device=value.device, generator=generator)


def _estimate(
    position: Tensor, rows: Tensor, centre: Centre, density: Any
) -> tuple[Tensor, Tensor]:
    """Potential energy and gradient from minibatches, about the centre where there is one.

    The density takes `indices` beside the position, as `LogDensity.value_and_grad` does.
    """
    potential: Tensor
    gradient: Tensor
    if rows.shape[1] == 0 or centre.position.shape[1] == 0:
        indices = {"indices": rows} if rows.shape[1] else {}
        potential, gradient = density.value_and_grad(position, **indices)
        return potential, gradient
    # Both points see the same rows, in one call.
    both = torch.cat([position, centre.position])
    potential, gradient = density.value_and_grad(both, indices=torch.cat([rows, rows]))
    chains = len(position)
    return (
        potential[:chains] - potential[chains:] + centre.potential,
        gradient[:chains] - gradient[chains:] + centre.gradient,
    )


def _rows_of(density: Any) -> int:
    rows: int = density.rows
    if rows == 0:
        raise UserError("minibatches need observed data with one row a datum: leave batch_size out")
    return rows
