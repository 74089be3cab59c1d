"""Trajectories of a learned length: their state, and how many steps each draw makes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_bnn.infer.kernels.hamiltonian import Metric, State

__all__ = ["TrajectoryState", "count_steps", "van_der_corput"]


class TrajectoryState(NamedTuple):
    """A Hamiltonian state that knows how far to go.

    Attributes
    ----------
    position, potential, gradient, step_size, metric
        As in `State`.
    mean_steps : Tensor
        Mean number of steps of a trajectory, a scalar shared by all chains.
    draws : Tensor
        Draws made, a scalar integer: the place in the sequence that jitters the length.
    """

    position: Tensor
    potential: Tensor
    gradient: Tensor
    step_size: Tensor
    metric: Metric
    mean_steps: Tensor
    draws: Tensor

    @classmethod
    def start(cls, state: State, mean_steps: float) -> TrajectoryState:
        """Extend a Hamiltonian state."""
        mean = torch.full_like(state.step_size, mean_steps)
        draws = torch.zeros((), dtype=torch.int64, device=state.position.device)
        return cls(*state, mean, draws)


def count_steps(state: TrajectoryState, most: int) -> int:
    """Return the steps of the next trajectory: the only number that a draw reads from the device.

    Lengths are spread over (0, 2 T) for the mean length T, by a sequence that fills the interval
    more evenly than random numbers do (Hoffman, Radul & Sountsov 2021, section 3).
    """
    share = 2 * van_der_corput(int(state.draws) + 1)
    return min(max(1, round(share * float(state.mean_steps))), most)


def van_der_corput(index: int) -> float:
    """Return the `index`-th point of Halton's sequence in base two: its bits, mirrored.

    Examples
    --------
    >>> [van_der_corput(index) for index in (1, 2, 3, 4)]
    [0.5, 0.25, 0.75, 0.125]
    """
    point, weight = 0.0, 0.5
    while index:
        point += weight * (index & 1)
        index, weight = index >> 1, weight / 2
    return point
