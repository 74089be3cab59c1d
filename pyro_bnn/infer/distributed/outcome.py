"""What all blocks of a run together have done."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_bnn.infer.checkpoint import Progress
from pyro_bnn.infer.guides.failure import Failure

__all__ = ["BlockedGuide", "BlockedRun"]


@dataclass(frozen=True)
class BlockedGuide:
    """The members of all blocks that are left, every training that failed, and how they trained."""

    members: list[int]
    failures: list[Failure]
    batching: str


@dataclass(frozen=True)
class BlockedRun:
    """What `MCMC` and `GuideRun` tell of themselves, summed over blocks.

    Attributes
    ----------
    progress : Progress
        Times are sums over blocks, as if one process had done them all; gradients are those of a
        chain on average.
    gradient_path : str
        Which form the gradient took in the last block, and why.
    gradient_passes : tuple of str
        The passes that rewrote it.
    guide : BlockedGuide, optional
        Of a guide.
    """

    progress: Progress
    gradient_path: str
    gradient_passes: tuple[str, ...]
    guide: BlockedGuide | None = None
