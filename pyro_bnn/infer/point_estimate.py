"""The network as it is usually trained: one maximum a posteriori fit by Adam."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.halving import INPUTS_AT_ONCE
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity

__all__ = ["maximum_a_posteriori"]

_MOST_ROWS = 4096
_BATCH = 256
_MOST_WEIGHTS = 2**24
_MOST_INPUTS = 4 * INPUTS_AT_ONCE


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
    Steps see all rows up to 4,096 of them, and beyond that 256 drawn at random: what it costs is
    bounded, however many rows there are. Of large networks there are fewer starts, so that all of
    them together have no more than 2^24 weights, or a single one; and of large rows, fewer start
    at once, the activations of a step being what fills memory.

    Parameters
    ----------
    density : LogDensity
        What to maximise.
    generator : torch.Generator
        Seeds the starts, which are draws from the prior.
    restarts : int
        Starts, if the network is not large.
    steps : int
        Gradient steps of each.
    learning_rate : float
        Adam's, at the beginning.

    Returns
    -------
    dict of str to Tensor
        Site values in their own space, ``(1, *shape)``.
    """
    restarts = max(1, min(restarts, _MOST_WEIGHTS // density.dim))
    together = _starts_together(density, restarts)
    ends = [
        _descend(density, together, generator, steps, learning_rate)
        for _ in range(restarts // together)
    ]
    energies = [_energy(density, end) for end in ends] if restarts > 1 else []
    best = int(torch.cat(energies).argmin()) if energies else 0
    return density.constrain(torch.cat(ends)[best : best + 1])


def _descend(
    density: LogDensity,
    starts: int,
    generator: torch.Generator,
    steps: int,
    learning_rate: float,
) -> Tensor:
    """Return where some starts end, ``(start, dim)``; all see the same rows."""
    rows = _rows(density, generator)
    position = density.initial_position(starts, generator, indices=rows).requires_grad_(True)
    optimiser = torch.optim.Adam([position], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        _, position.grad = density.value_and_grad(position.detach(), _rows(density, generator))
        optimiser.step()
        schedule.step()
    return position.detach()


def _energy(density: LogDensity, position: Tensor) -> Tensor:
    """Return the potential energy on all rows, infinite where it is none: ``(start,)``."""
    if density.rows > _MOST_ROWS and not density.chunks():
        density = density.chunked(_MOST_ROWS)
    held = with_statistics(density, density.constrain(position))
    return density.potential(position, None, held).nan_to_num(nan=torch.inf)


def _starts_together(density: LogDensity, restarts: int) -> int:
    """Return how many starts take their steps at once, a divisor of their number."""
    inputs = sum(tensor[0].numel() for tensor in density.row_data()) if density.rows else 1
    rows = density.rows if density.rows <= _MOST_ROWS else _BATCH
    most = _MOST_INPUTS // max(1, inputs * rows)
    return max((k for k in range(1, restarts + 1) if restarts % k == 0 and k <= most), default=1)


def _rows(density: LogDensity, generator: torch.Generator) -> Tensor | None:
    if density.rows <= _MOST_ROWS:
        return None
    return torch.randint(density.rows, (_BATCH,), generator=generator, device=generator.device)
