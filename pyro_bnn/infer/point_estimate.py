"""The network as it is usually trained: one maximum a posteriori fit by Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.logdensity import LogDensity

__all__ = ["maximum_a_posteriori"]


def maximum_a_posteriori(
    density: LogDensity,
    generator: torch.Generator,
    *,
    restarts: int = 16,
    steps: int = 500,
    learning_rate: float = 0.02,
) -> dict[str, Tensor]:
    """Minimise the potential energy from several starts at once and keep the best end.

    Full-batch Adam (Kingma & Ba 2015) whose learning rate falls to zero along a cosine, in
    unconstrained space: there, log-Jacobians included, the mode is that of the density which the
    samplers see.

    Parameters
    ----------
    density : LogDensity
        What to maximise.
    generator : torch.Generator
        Seeds the starts, which are draws from the prior.
    restarts : int
        Starts, a batch.
    steps : int
        Gradient steps of each.
    learning_rate : float
        Adam's, at the beginning.

    Returns
    -------
    dict of str to Tensor
        Site values in their own space, ``(1, *shape)``.
    """
    position = density.initial_position(restarts, generator).requires_grad_(True)
    optimiser = torch.optim.Adam([position], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        _, position.grad = density.value_and_grad(position.detach())
        optimiser.step()
        schedule.step()
    end = position.detach()
    best = int(density.potential(end).nan_to_num(nan=torch.inf).argmin())
    return density.constrain(end[best : best + 1])
