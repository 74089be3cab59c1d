"""The base of Hamiltonian kernels: their options, their first state and their warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.first_step_size import reasonable_step_size
from pyro_bnn.infer.adaptation.warmup import Warmup
from pyro_bnn.infer.kernels.hamiltonian import Density, State, unit_metric
from pyro_bnn.infer.kernels.kernel import Kernel
from pyro_bnn.logdensity import LogDensity

__all__ = ["HamiltonianKernel"]


class HamiltonianKernel(Kernel):
    """A kernel that follows Hamilton's equations and accepts or rejects where they lead.

    Parameters
    ----------
    model : callable or LogDensity
        A Pyro model, or its log density where that has been built already.
    step_size : float
        Initial or fixed step size.
    adapt_step_size, adapt_mass_matrix, full_mass : bool
        What warm-up adapts, and whether the mass matrix is dense.
    target_accept_prob : float
        Mean acceptance rate that the step size aims at.
    init_strategy : callable, optional
        One of Pyro's ``init_to_*`` functions; draws from the prior by default.
    **pyro_only
        See `Kernel`.

    Raises
    ------
    UserError
        If an option is unknown or out of range.
    """

    def __init__(
        self,
        model: Callable[..., Any] | LogDensity,
        *,
        step_size: float,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        full_mass: bool,
        target_accept_prob: float,
        init_strategy: Callable[..., Any] | None,
        **pyro_only: Any,
    ) -> None:
        super().__init__(model, init_strategy=init_strategy, **pyro_only)
        name = type(self).__name__
        if step_size <= 0:
            raise UserError(f"{name}: step_size is {step_size}, give a number > 0")
        if not 0 < target_accept_prob < 1:
            raise UserError(
                f"{name}: target_accept_prob is {target_accept_prob}, give a number in (0, 1)"
            )
        if not isinstance(full_mass, bool):
            raise UserError(
                f"{name}: full_mass is {full_mass!r}, give True or False: the mass matrix is dense "
                "over all sites or over none"
            )
        self.step_size = step_size
        self.adapt_step_size = adapt_step_size
        self.adapt_mass_matrix = adapt_mass_matrix
        self.full_mass = full_mass
        self.target_accept_prob = target_accept_prob

    def init(self, position: Tensor, density: Density, generator: torch.Generator) -> Any:
        """Start a batch of chains at positions ``(chain, dim)``."""
        potential, gradient = density.value_and_grad(position)
        step_size = torch.tensor(self.step_size, dtype=position.dtype, device=position.device)
        metric = unit_metric(position, dense=self.full_mass)
        return State(position, potential, gradient, step_size, metric)

    def warmup(self, num_steps: int) -> Warmup:
        """Return the adaptation of step size and mass matrix over `num_steps` steps."""
        return Warmup(
            num_steps,
            adapt_step_size=self.adapt_step_size,
            adapt_mass_matrix=self.adapt_mass_matrix,
            target_accept_prob=self.target_accept_prob,
            find_step_size=reasonable_step_size,
        )
