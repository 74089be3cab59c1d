"""A first step size: double or halve until a single step does as it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import Density, leapfrog

__all__ = ["StepSizeSearch", "acceptance_of", "reasonable_step_size", "search_step_size"]

StepSizeSearch = Callable[[Any, Density, torch.Generator], Tensor]
"""From a state to step sizes of the same shape."""


def reasonable_step_size(state: Any, density: Density, generator: torch.Generator) -> Tensor:
    """Double or halve step sizes until one leapfrog step is accepted 80 % of the time.

    The heuristic of Hoffman & Gelman 2014, algorithm 4, with Stan's threshold of 0.8.

    Returns
    -------
    Tensor
        Of the shape of ``state.step_size``: for each chain, or for the mean over chains.
    """
    momentum = state.metric.draw_momentum(state.position, generator)
    start = state.potential + state.metric.kinetic_energy(momentum)

    def rate(step_size: Tensor) -> Tensor:
        _, moved, potential, _ = leapfrog(
            state.position, momentum, state.gradient, density, step_size, state.metric
        )
        return acceptance_of(potential + state.metric.kinetic_energy(moved) - start, start)

    return search_step_size(state.step_size, rate)


def acceptance_of(rise: Tensor, start: Tensor) -> Tensor:
    """Return acceptance rates ``(chain,)``; NaN for a chain that is NaN before it moves."""
    acceptance = torch.exp(-torch.nan_to_num(rise, nan=torch.inf)).clamp(max=1)
    return torch.where(start.isnan(), torch.nan, acceptance)


def search_step_size(step_size: Tensor, rate: Callable[[Tensor], Tensor]) -> Tensor:
    """Double or halve step sizes until the rate of success crosses 80 %.

    Parameters
    ----------
    step_size : Tensor
        Where to start: ``(chain,)``, or a scalar, for the mean over chains.
    rate : callable
        From step sizes to rates ``(chain,)`` that fall with the step; a NaN says nothing.
    """
    direction = torch.zeros_like(step_size)
    settled = torch.zeros_like(step_size, dtype=torch.bool)
    for _ in range(60):
        success = rate(step_size) if step_size.ndim else rate(step_size).nanmean()
        wanted = torch.where(success > 0.8, 1.0, -1.0).to(step_size)
        settled = settled | ((direction != 0) & (wanted != direction))
        if bool(settled.all()):
            break
        direction = torch.where(settled, direction, wanted)
        step_size = torch.where(settled, step_size, step_size * 2**direction)
    return step_size
