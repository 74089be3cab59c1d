"""Which chains or members a task has, and its seed: matters of the recipe alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Block", "blocks"]

_BLOCKS = 2**32  # sets these seeds apart from those of members and of their draws


@dataclass(frozen=True)
class Block:
    """Consecutive chains that are one task: they move as one batch and adapt together.

    Attributes
    ----------
    index : int
        Number of the block.
    start : int
        Its first chain.
    chains : int
        How many.
    seed : int
        Of all of its random numbers.
    """

    index: int
    start: int
    chains: int
    seed: int


def blocks(chains: int, size: int, seed: int) -> list[Block]:
    """Cut chains into blocks; the last may be smaller.

    The first block has the seed of the run, so that a run of one block is the run without blocks.

    Parameters
    ----------
    chains : int
        In all.
    size : int
        Of a block.
    seed : int
        Of the run.

    Examples
    --------
    >>> [(block.start, block.chains) for block in blocks(10, 4, seed=7)]
    [(0, 4), (4, 4), (8, 2)]
    >>> blocks(4, 4, seed=7)[0].seed
    7
    """
    return [
        Block(index, start, min(size, chains - start), _seed(seed, index))
        for index, start in enumerate(range(0, chains, size))
    ]


def _seed(seed: int, index: int) -> int:
    if index == 0:
        return seed
    return int(np.random.SeedSequence((seed, _BLOCKS + index)).generate_state(1)[0])
