"""The base of kernels whose trajectory length is learned across chains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.trajectory import TrajectoryWarmup
from pyro_bnn.infer.kernels.hamiltonian import Density
from pyro_bnn.infer.kernels.hamiltonian_kernel import HamiltonianKernel
from pyro_bnn.infer.kernels.trajectory import TrajectoryState
from pyro_bnn.logdensity import LogDensity

__all__ = ["TrajectoryKernel"]


class TrajectoryKernel(HamiltonianKernel):
    """A kernel that makes the same number of steps in every chain, its mean learned in warm-up.

    Parameters
    ----------
    model, step_size, adapt_step_size, adapt_mass_matrix, full_mass, init_strategy
        See `HamiltonianKernel`.
    num_steps : float
        Mean number of steps of a trajectory, where the adaptation starts.
    adapt_num_steps : bool
        Whether warm-up learns that number.
    target_accept_prob : float
        Acceptance rate, a harmonic mean over chains, that the step size aims at.

    Raises
    ------
    UserError
        If an option is unknown or out of range.
    """

    state_type = TrajectoryState

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        step_size: float = 0.1,
        num_steps: float = 10.0,
        adapt_step_size: bool = True,
        adapt_num_steps: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.651,
        init_strategy: Callable[..., Any] | None = None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept_prob=target_accept_prob,
            init_strategy=init_strategy,
            **pyro_only,
        )
        if num_steps < 1:
            raise UserError(f"{type(self).__name__}: num_steps is {num_steps}, give at least 1")
        self.num_steps = num_steps
        self.adapt_num_steps = adapt_num_steps

    def init(
        self, position: Tensor, density: Density, generator: torch.Generator
    ) -> TrajectoryState:
        """Start a batch of chains at positions ``(chain, dim)``."""
        state = super().init(position, density, generator)
        return TrajectoryState.start(state, self.num_steps)

    def warmup(self, num_steps: int) -> TrajectoryWarmup:
        """Return the adaptation of step size, length and mass matrix over `num_steps` steps."""
        return TrajectoryWarmup(
            num_steps,
            adapt_step_size=self.adapt_step_size,
            adapt_num_steps=self.adapt_num_steps,
            adapt_mass_matrix=self.adapt_mass_matrix,
            target_accept_prob=self.target_accept_prob,
            find_step_size=self._find_step_size,
        )

    @abstractmethod
    def _find_step_size(self, state: Any, density: Density, generator: torch.Generator) -> Tensor:
        """Return first step sizes of the shape of ``state.step_size``."""
