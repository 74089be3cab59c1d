"""Isokinetic dynamics: motion at unit speed whose direction the gradient turns.

Robnik, De Luca, Silverstein & Seljak 2023; the integrator is the minimal-norm one of second order
(Omelyan, Mryglod & Folk 2003).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.kernels.hamiltonian import Density

__all__ = [
    "GRADIENTS_PER_STEP",
    "draw_direction",
    "isokinetic_step",
    "kick",
    "partial_refresh",
    "refuse_one_dimension",
    "spread",
]

GRADIENTS_PER_STEP = 2

_MINIMAL_NORM = 0.1931833275037836


def isokinetic_step(
    position: Tensor,
    direction: Tensor,
    gradient: Tensor,
    density: Density,
    step_size: Tensor,
    root: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One minimal-norm step of every chain: kick, drift, kick, drift, kick.

    Parameters
    ----------
    position, direction, gradient : Tensor
        ``(chain, dim)`` each; directions are unit vectors in the metric's units, the gradient is
        that of the potential energy at `position`.
    density : Density
        Where gradients come from.
    step_size : Tensor
        A scalar or ``(chain,)``.
    root : Tensor
        ``Metric.unwhitening()``: deviations ``(dim,)`` or a factor ``(dim, dim)``.

    Returns
    -------
    position, direction, potential, gradient : Tensor
        After the step.
    kinetic : Tensor
        Change of the kinetic energy ``(chain,)``, minus the logarithm of the step's Jacobian.
    """
    half = 0.5 * step_size[..., None]
    direction, first = kick(direction, _whiten(gradient, root), _MINIMAL_NORM * step_size)
    position = position + half * spread(direction, root)
    _, gradient = density.value_and_grad(position)
    middle_share = 1 - 2 * _MINIMAL_NORM
    direction, second = kick(direction, _whiten(gradient, root), middle_share * step_size)
    position = position + half * spread(direction, root)
    potential, gradient = density.value_and_grad(position)
    direction, third = kick(direction, _whiten(gradient, root), _MINIMAL_NORM * step_size)
    return position, direction, potential, gradient, first + second + third


def kick(direction: Tensor, gradient: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Turn unit vectors ``(chain, dim)`` downhill for a while, exactly for a constant gradient.

    With e the direction of steepest descent, p = e . u and delta = time |g| / (dim - 1),
    ``u' = (u + (sinh(delta) + p (cosh(delta) - 1)) e) / (cosh(delta) + p sinh(delta))``, written
    here with exp(-delta) so that nothing overflows.

    Returns
    -------
    direction : Tensor
        The new unit vectors.
    kinetic : Tensor
        ``(dim - 1) log(cosh(delta) + p sinh(delta))``, ``(chain,)``.
    """
    freedom = direction.shape[1] - 1
    norm = gradient.norm(dim=1, keepdim=True).clamp(min=1e-30)
    downhill = -gradient / norm
    delta = time[..., None] * norm / freedom
    # (1 + p) / 2 by the sum: p itself rounds to -1 where a direction points uphill.
    both = downhill + direction
    half = 0.25 * both.square().sum(1, keepdim=True)
    shrunk = torch.exp(-delta)
    lost = -torch.expm1(-delta)
    # (cosh + p sinh) exp(-delta), the length of what is turned below.
    weight = half + (1 - half) * shrunk**2
    turned = downhill * half * lost**2 + shrunk * (both - shrunk * downhill)
    turned = torch.where(weight > 0, turned / weight, direction)
    short = torch.log1p((1 - half) * torch.expm1(-2 * delta))
    long = torch.log(weight).maximum(-2 * delta)
    logarithm = delta + torch.where(delta < 1, short, long)
    return _unit(turned), freedom * logarithm[:, 0]


def draw_direction(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw unit vectors uniformly, of the shape of `like` ``(chain, dim)``."""
    noise = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return _unit(noise)


def partial_refresh(direction: Tensor, time: Tensor, generator: torch.Generator) -> Tensor:
    """Let directions ``(chain, dim)`` decay towards noise for `time` decoherence lengths.

    ``u' = (u + nu z) / |u + nu z|`` with ``nu^2 = (exp(2 time) - 1) / dim``, both terms times
    exp(-time) so that nothing overflows.
    """
    kept = torch.exp(-time)[..., None]
    scale = (-torch.expm1(-2 * time) / direction.shape[1]).sqrt()[..., None]
    noise = torch.randn(
        direction.shape, dtype=direction.dtype, device=direction.device, generator=generator
    )
    return _unit(kept * direction + scale * noise)


def spread(direction: Tensor, root: Tensor) -> Tensor:
    """Velocities ``(chain, dim)`` in the space of positions."""
    return direction * root if root.ndim == 1 else direction @ root.mT


def refuse_one_dimension(position: Tensor, kernel: str) -> None:
    """Raise if positions ``(chain, dim)`` leave a unit vector nowhere to turn."""
    if position.shape[1] < 2:
        raise UserError(
            f"{kernel} moves at unit speed and can turn in two dimensions or more; "
            "the model has a single latent number: use HMC"
        )


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().sum(1, keepdim=True).sqrt()


def _whiten(gradient: Tensor, root: Tensor) -> Tensor:
    return gradient * root if root.ndim == 1 else gradient @ root
