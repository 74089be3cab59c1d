"""One block of members: trained in this process or in another, saved as it goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.seeds import generators
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import load_state, save_state

__all__ = ["Block", "Trained", "train_block"]


class Block(NamedTuple):
    """Members to train together.

    Attributes
    ----------
    entries : list of (int, int)
        Number and attempt of each member.
    seeds : list of int
        Their seeds.
    """

    entries: list[tuple[int, int]]
    seeds: list[int]

    def file(self, directory: Path) -> Path:
        """Where its unfinished training is kept."""
        member, attempt = self.entries[0]
        return directory / "training" / f"{member:06d}-{attempt}.safetensors"


class Trained(NamedTuple):
    """State of a trained block, its losses ``(member, epoch)``, and gradients of a member."""

    state: Parameters
    losses: Tensor
    gradients: int


class Trains(Protocol):
    """What a guide has to have."""

    def train(
        self, density: LogDensity, sources: Any, resume: Any, save: Any
    ) -> tuple[Parameters, Tensor, int]:
        """Train a block of members."""


class Interrupt(Protocol):
    """Whether somebody wants the training to stop."""

    @property
    def requested(self) -> bool:
        """Asked for at the end of each epoch."""


def train_block(
    guide: Trains,
    density: LogDensity,
    block: Block,
    directory: Path | None,
    save_every: int,
    interrupt: Interrupt,
) -> Trained:
    """Train a block, going on from what an earlier attempt has saved.

    Raises
    ------
    KeyboardInterrupt
        After the epoch in which that was asked for, what there is being saved.
    """
    file = None if directory is None else block.file(directory)
    saves = 0

    def save(tensors: Mapping[str, Tensor]) -> None:
        nonlocal saves
        saves += 1
        if file is not None and (saves % save_every == 0 or interrupt.requested):
            save_state(file, tensors, {"block": _name(block)})
        if interrupt.requested:
            raise KeyboardInterrupt

    sources = generators(block.seeds, density.device)
    return Trained(*guide.train(density, sources, _saved(file, block), save))


def _saved(file: Path | None, block: Block) -> Parameters | None:
    if file is None or not file.is_file():
        return None
    tensors, metadata = load_state(file)
    return tensors if metadata.get("block") == _name(block) else None


def _name(block: Block) -> str:
    entries: Sequence[Any] = [list(entry) for entry in block.entries]
    return json.dumps([entries, block.seeds])
