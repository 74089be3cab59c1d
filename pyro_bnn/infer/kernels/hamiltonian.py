"""What Hamiltonian kernels share: the state, the metric and the leapfrog integrator."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "DIVERGENCE",
    "Density",
    "Info",
    "Metric",
    "State",
    "Trajectory",
    "leapfrog",
    "metric_from_variance",
    "unit_metric",
]

DIVERGENCE = 1000.0
"""Rise of the energy, in nats, beyond which a trajectory counts as divergent (as in Stan)."""


class Density(Protocol):
    """What kernels ask of a log density."""

    def value_and_grad(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Potential energies ``(chain,)`` and gradients ``(chain, dim)``."""
        ...


class Metric(NamedTuple):
    """The mass matrix of the kinetic energy.

    Attributes
    ----------
    inverse : Tensor
        Inverse mass, an estimate of the posterior's variances ``(dim,)`` or covariance
        ``(dim, dim)``.
    factor : Tensor
        Maps standard normal noise to momenta: the square root ``(dim,)`` of a diagonal mass
        matrix, or the transposed inverse of the covariance's Cholesky factor ``(dim, dim)``.
    """

    inverse: Tensor
    factor: Tensor

    def velocity(self, momentum: Tensor) -> Tensor:
        """Velocities ``(chain, dim)`` of momenta ``(chain, dim)``."""
        return momentum * self.inverse if self.inverse.ndim == 1 else momentum @ self.inverse

    def draw_momentum(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw momenta of the shape of `like` from N(0, M)."""
        noise = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
        return noise * self.factor if self.factor.ndim == 1 else noise @ self.factor.mT

    def kinetic_energy(self, momentum: Tensor) -> Tensor:
        """Half of the squared momentum in the inverse metric: ``(chain,)``."""
        return 0.5 * (momentum * self.velocity(momentum)).sum(-1)

    def whiten(self, difference: Tensor) -> Tensor:
        """Differences of positions ``(chain, dim)`` in units in which the mass is one."""
        return difference * self.factor if self.factor.ndim == 1 else difference @ self.factor

    def unwhitening(self) -> Tensor:
        """Return the map back: deviations ``(dim,)``, or a factor ``(dim, dim)``.

        With S the inverse mass it is C with C C^T = S, so that ``C z`` of standard normal z has
        covariance S.
        """
        if self.inverse.ndim == 1:
            return self.inverse * self.factor
        return self.inverse @ self.factor


class State(NamedTuple):
    """All that a Hamiltonian kernel needs to go on.

    Attributes
    ----------
    position : Tensor
        Unconstrained positions ``(chain, dim)``.
    potential : Tensor
        Potential energies ``(chain,)``.
    gradient : Tensor
        Gradients of the potential energy ``(chain, dim)``.
    step_size : Tensor
        Of the integrator: a scalar tensor shared by all chains, or ``(chain,)`` while warm-up
        lets each chain find its way to the typical set.
    metric : Metric
        Mass matrix, shared by all chains.
    """

    position: Tensor
    potential: Tensor
    gradient: Tensor
    step_size: Tensor
    metric: Metric


class Trajectory(NamedTuple):
    """The two ends of a proposal, for those who learn how far to go: ``(chain, dim)`` each.

    Attributes
    ----------
    start, end : Tensor
        Positions before the step and as proposed.
    velocity : Tensor
        With which the trajectory arrived.
    length : Tensor
        Time that it took, ``(chain,)``.
    """

    start: Tensor
    end: Tensor
    velocity: Tensor
    length: Tensor


class Info(NamedTuple):
    """What happened in one step.

    Attributes
    ----------
    stats : dict of str to Tensor
        ``sample_stats`` of the draw, under ArviZ's names, each ``(chain,)``.
    gradients : int
        Gradients computed for each chain, those of chains that only waited included.
    trajectory : Trajectory, optional
        What was proposed, from kernels whose warm-up learns the length of trajectories.
    """

    stats: dict[str, Tensor]
    gradients: int
    trajectory: Trajectory | None = None


def unit_metric(position: Tensor, *, dense: bool) -> Metric:
    """Return the identity as mass matrix for positions ``(chain, dim)``."""
    dim = position.shape[1]
    identity = torch.eye(dim) if dense else torch.ones(dim)
    identity = identity.to(position)
    return Metric(identity, identity)


def metric_from_variance(variance: Tensor) -> Metric:
    """Build the metric from variances ``(dim,)`` or a covariance matrix ``(dim, dim)``."""
    if variance.ndim == 1:
        return Metric(variance, variance.rsqrt())
    cholesky = torch.linalg.cholesky(variance)
    identity = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
    inverse_factor = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    return Metric(variance, inverse_factor.mT)


def leapfrog(
    position: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    density: Density,
    step_size: Tensor,
    metric: Metric,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One leapfrog step of every chain.

    Half a step of the momentum, a whole step of the position, half a step of the momentum
    (Neal 2011, equations 2.28 to 2.30): reversible, volume-preserving, of second order.

    Parameters
    ----------
    position, momentum, gradient : Tensor
        ``(chain, dim)`` each; the gradient is that of the potential energy at `position`.
    density : Density
        Where gradients come from.
    step_size : Tensor
        A scalar or ``(chain,)``; negative steps go back in time.
    metric : Metric
        The mass matrix.

    Returns
    -------
    position, momentum, potential, gradient : Tensor
        After the step.
    """
    step_size = step_size[..., None]
    momentum = momentum - 0.5 * step_size * gradient
    position = position + step_size * metric.velocity(momentum)
    potential, gradient = density.value_and_grad(position)
    momentum = momentum - 0.5 * step_size * gradient
    return position, momentum, potential, gradient
