"""The network as it is usually trained: one maximum a posteriori fit by Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.logdensity import LogDensity

__all__ = ["maximum_a_posteriori"]

_MOST_ROWS = 4096
_BATCH = 256


def maximum_a_posteriori(
    density: LogDensity,
    generator: torch.Generator,
    *,
    restarts: int = 16,
    steps: int = 500,
    learning_rate: float = 0.02,
) -> dict[str, Tensor]:
    """Minimise the potential energy from several starts at once and keep the best end.

    Adam (Kingma & Ba 2015) whose learning rate falls to zero along a cosine, in unconstrained
    space: there, log-Jacobians included, the mode is that of the density which the samplers see.
    Steps see all rows up to 4,096 of them, and beyond that 256 drawn at random, the same for all
    starts: what it costs is bounded, however many rows there are.

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
    rows = _rows(density, generator)
    position = density.initial_position(restarts, generator, indices=rows).requires_grad_(True)
    optimiser = torch.optim.Adam([position], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        _, position.grad = density.value_and_grad(position.detach(), _rows(density, generator))
        optimiser.step()
        schedule.step()
    end = position.detach()
    best = int(density.potential(end).nan_to_num(nan=torch.inf).argmin())
    return density.constrain(end[best : best + 1])


def _rows(density: LogDensity, generator: torch.Generator) -> Tensor | None:
    if density.rows <= _MOST_ROWS:
        return None
    return torch.randint(density.rows, (_BATCH,), generator=generator, device=generator.device)
