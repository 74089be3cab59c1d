"""ChEES-HMC: the trajectory length learned across chains (Hoffman, Radul & Sountsov 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.first_step_size import reasonable_step_size
from pyro_bnn.infer.kernels.hamiltonian import Density, Info
from pyro_bnn.infer.kernels.hmc import metropolis_step
from pyro_bnn.infer.kernels.trajectory import TrajectoryState, count_steps
from pyro_bnn.infer.kernels.trajectory_kernel import TrajectoryKernel

__all__ = ["ChEES"]


class ChEES(TrajectoryKernel):
    """Hamiltonian Monte Carlo whose trajectories are as long as the chains find useful.

    Warm-up climbs the change in the estimator of the expected square, the mean of
    ``(|q' - m|^2 - |q - m|^2)^2 / 4`` over chains, by stochastic gradient steps in the logarithm
    of the mean length. Lengths are spread evenly over (0, 2 T) for the mean T, and every chain
    makes the same number of leapfrog steps, so that none waits for another.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model.
    step_size : float
        Where the adaptation starts, or the step size itself when it is not adapted.
    num_steps : float
        Mean number of leapfrog steps of a trajectory, where the adaptation starts.
    adapt_step_size, adapt_num_steps, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the mass matrix is dense.
    target_accept_prob : float
        Acceptance rate, a harmonic mean over chains, that the step size aims at; 0.651 is the
        optimum of the paper.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.

    Raises
    ------
    UserError
        If an option is out of range; by `init`, if there is a single chain.
    """

    max_steps = 1024
    """Leapfrog steps that a draw makes at most."""

    def init(
        self, position: Tensor, density: Density, generator: torch.Generator
    ) -> TrajectoryState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        if len(position) < 2:
            raise UserError(
                "ChEES learns the trajectory length across chains and has only one: "
                "give num_chains of at least 2, or use HMC"
            )
        return super().init(position, density, generator)

    def step(
        self, state: TrajectoryState, density: Density, generator: torch.Generator
    ) -> tuple[TrajectoryState, Info]:
        """Refresh the momentum, follow a trajectory, accept or reject its end."""
        steps = count_steps(state, self.max_steps)
        new, info = metropolis_step(state, steps, density, generator)
        return new._replace(draws=new.draws + 1), info

    def _find_step_size(self, state: Any, density: Density, generator: torch.Generator) -> Tensor:
        return reasonable_step_size(state, density, generator)
