"""Random numbers of ensemble members: one stream each, the same alone and among others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["generators", "member_seeds", "normal", "uniform"]


def member_seeds(seed: int, count: int, attempt: int = 0) -> list[int]:
    """Derive a seed for each member; the first member's is the ensemble's own.

    A member trained alone with its seed is the member: so member 0 is the guide that was fitted
    with `seed`, and the seeds of two ensembles do not overlap.

    Parameters
    ----------
    seed : int
        Of the ensemble.
    count : int
        Members.
    attempt : int
        How often these members have been started before.

    Examples
    --------
    >>> member_seeds(7, 1), member_seeds(7, 3)[:2] == member_seeds(7, 2)
    ([7], True)
    """
    spawned = [_derived(seed, attempt, member) for member in range(count)]
    return [seed, *spawned[1:]] if attempt == 0 and count else spawned


def generators(seeds: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """Return a seeded generator for each member."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def draw_seed(seed: int, part: int) -> int:
    """Derive the seed of part `part` of a member's draws, apart from that of its training."""
    return _derived(seed, 2**31 + part)


def normal(sources: Sequence[torch.Generator], shape: Sequence[int], like: Tensor) -> Tensor:
    """Draw standard normal numbers ``(member, *shape)``, each member's from its own source."""
    out = torch.empty((len(sources), *shape), dtype=like.dtype, device=like.device)
    for row, source in zip(out, sources, strict=True):
        row.normal_(generator=source)
    return out


def uniform(sources: Sequence[torch.Generator], shape: Sequence[int], like: Tensor) -> Tensor:
    """Draw numbers uniform in [0, 1), ``(member, *shape)``, each member's from its own source."""
    out = torch.empty((len(sources), *shape), dtype=like.dtype, device=like.device)
    for row, source in zip(out, sources, strict=True):
        row.uniform_(generator=source)
    return out


def _derived(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(2))
