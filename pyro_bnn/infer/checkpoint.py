"""A run on disk: segments of draws, and a state from which the sampler goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.adaptation.adaptation import Adaptation
from pyro_bnn.infer.draws import DrawBlock
from pyro_bnn.trace import SegmentWriter, discard_segments, load_state, save_state

__all__ = ["Checkpoint", "Progress", "Snapshot"]


@dataclass
class Progress:
    """How far a run has come.

    Attributes
    ----------
    warmup, draws : int
        Steps of warm-up and draws made, of each chain.
    segments : int
        Segments written.
    gradients : int
        Gradients computed so far, for each chain.
    divergences : int
        Divergent transitions after warm-up, of all chains.
    stuck : int
        Steps in a row, up to the last one, in which every chain diverged.
    dead : list of int
        Chains whose state is no longer finite.
    seconds_warmup, seconds_sampling : float
        Time spent.
    """

    warmup: int = 0
    draws: int = 0
    segments: int = 0
    gradients: int = 0
    divergences: int = 0
    stuck: int = 0
    dead: list[int] = field(default_factory=list)
    seconds_warmup: float = 0.0
    seconds_sampling: float = 0.0


class Snapshot(NamedTuple):
    """Everything that decides the draws to come."""

    state: Any
    generator: Tensor
    progress: Progress


class Checkpoint:
    """Writes and reads the resumable part of a run directory.

    The state is written after the segments that it counts. A kill between the two leaves segments
    too many; on resuming they are discarded, and drawn again, the same.

    Parameters
    ----------
    directory : Path
        The run directory.
    dims : mapping, optional
        Names of the axes of each site.
    """

    def __init__(self, directory: Path, dims: Mapping[str, Sequence[str]] | None = None) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._writer = SegmentWriter(self.directory, dims)

    @property
    def state_file(self) -> Path:
        """Where the state is kept."""
        return self.directory / "state.safetensors"

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.state_file.is_file()

    def write_draws(self, block: DrawBlock, progress: Progress) -> None:
        """Write the draws of a block as the next segment and count it."""
        groups = {"posterior": block.posterior(), "sample_stats": block.stats()}
        self._writer.write(progress.segments, groups, progress.draws - block.length)
        progress.segments += 1
        block.clear()

    def save(self, snapshot: Snapshot, warmup: Adaptation) -> None:
        """Write the state, whole or not at all."""
        tensors = {
            "generator": snapshot.generator,
            **_leaves(snapshot.state, "state."),
            **warmup.tensors(),
        }
        metadata = {"progress": json.dumps(asdict(snapshot.progress))}
        save_state(self.state_file, tensors, metadata)

    def load(self, state_type: type, warmup: Adaptation, device: torch.device) -> Snapshot:
        """Read a state of the given type, set up `warmup`, drop segments that it does not count.

        Raises
        ------
        UserError
            If the state is not that of a kernel of this kind.
        """
        tensors, metadata = load_state(self.state_file)
        generator = tensors.pop("generator")
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        try:
            state = _restored(state_type, tensors, "state.")
            warmup.load(tensors)
        except KeyError as error:
            raise UserError(
                f"{self.state_file} has no {error.args[0]!r}: it is of another kernel; go on with "
                "the recipe of the run"
            ) from error
        progress = Progress(**json.loads(metadata["progress"]))
        discard_segments(self.directory, progress.segments)
        return Snapshot(state, generator, progress)


def _leaves(value: Any, prefix: str) -> dict[str, Tensor]:
    """Tensors of nested NamedTuples under dotted names."""
    found: dict[str, Tensor] = {}
    for name, part in value._asdict().items():
        if isinstance(part, Tensor):
            found[prefix + name] = part
        else:
            found |= _leaves(part, f"{prefix}{name}.")
    return found


def _restored(kind: type, tensors: Mapping[str, Tensor], prefix: str) -> Any:
    """Rebuild nested NamedTuples from `_leaves`."""
    parts = {
        name: tensors[prefix + name]
        if part is Tensor
        else _restored(part, tensors, f"{prefix}{name}.")
        for name, part in get_type_hints(kind).items()
    }
    return kind(**parts)
