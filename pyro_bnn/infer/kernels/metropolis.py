"""The end of every trajectory that is accepted or rejected (Metropolis et al. 1953)."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import DIVERGENCE

__all__ = ["accept_or_reject"]

AnyState = TypeVar("AnyState", bound=Any)


def accept_or_reject(
    state: AnyState,
    end: tuple[Tensor, Tensor, Tensor],
    rise: Tensor,
    steps: int,
    generator: torch.Generator,
) -> tuple[AnyState, Tensor, dict[str, Tensor]]:
    """Move each chain to the end of its trajectory with the probability that its energy allows.

    Parameters
    ----------
    state : NamedTuple
        Where the trajectories began: a `State`, or one that has its fields among others.
    end : tuple of Tensor
        Position ``(chain, dim)``, potential energy ``(chain,)`` and gradient at their ends.
    rise : Tensor
        Rise of the energy along each, ``(chain,)``; NaN is never accepted.
    steps : int
        Steps of a trajectory.
    generator : torch.Generator
        Random numbers.

    Returns
    -------
    state : NamedTuple
        The states to go on from.
    accepted : Tensor
        Whether each chain moved, ``(chain,)``.
    stats : dict of str to Tensor
        ``sample_stats`` that follow from it.
    """
    rise = torch.nan_to_num(rise, nan=math.inf)
    acceptance = torch.exp(-rise).clamp(max=1.0)
    uniform = torch.rand(rise.shape, dtype=rise.dtype, device=rise.device, generator=generator)
    accepted = uniform < acceptance
    position, potential, gradient = end
    chosen = accepted[:, None]
    new = state._replace(
        position=torch.where(chosen, position, state.position),
        potential=torch.where(accepted, potential, state.potential),
        gradient=torch.where(chosen, gradient, state.gradient),
    )
    stats = {
        "lp": -new.potential,
        "acceptance_rate": acceptance,
        "diverging": rise > DIVERGENCE,
        "n_steps": torch.full_like(rise, steps, dtype=torch.int32),
        "step_size": state.step_size.expand(rise.shape),
    }
    return new, accepted, stats
