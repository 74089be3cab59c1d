"""The progress line of a run in blocks: read from what the blocks have saved so far."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError, safe_open

from pyro_bnn.infer.distributed.partition import Block
from pyro_bnn.infer.progress_line import progress_line
from pyro_bnn.infer.recipe import Recipe

__all__ = ["BlockMeter", "steps_saved"]

_LOOK_SECONDS = 2.0


class BlockMeter:
    """Shows the steps of all blocks together, or the members of a guide, as they are saved.

    Parameters
    ----------
    recipe : Recipe
        Of the whole run.
    blocks : sequence of Block
        All of them.
    folders : sequence of Path
        The directory of each.
    left : sequence of int
        Numbers of those that are to be run.
    """

    def __init__(
        self,
        recipe: Recipe,
        blocks: Sequence[Block],
        folders: Sequence[Path],
        left: Sequence[int],
    ) -> None:
        self._steps = 1 if recipe.guide else recipe.run.warmup + recipe.run.draws
        self._blocks, self._folders, self._left = blocks, folders, left
        self._looked = 0.0
        self._bar = progress_line(
            "blocks {task.fields[done]}/{task.fields[all]}",
            "members" if recipe.guide else "steps of chains",
        )

    def __enter__(self) -> Self:
        self._bar.start()
        total = sum(block.chains for block in self._blocks) * self._steps
        count = len(self._blocks)
        self._task = self._bar.add_task("", total=total, done=count - len(self._left), all=count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: Sequence[bool]) -> None:
        """Bring the line up to date, given which of the blocks that were left are done."""
        now = time.monotonic()
        if self._bar.disable or (now - self._looked < _LOOK_SECONDS and not all(done)):
            return
        self._looked = now
        running = {n for n, over in zip(self._left, done, strict=True) if not over}
        saved = sum(
            steps_saved(self._folders[block.index], block.chains)
            if block.index in running
            else block.chains * self._steps
            for block in self._blocks
        )
        count = len(self._blocks)
        self._bar.update(self._task, completed=saved, done=count - len(running), all=count)


def steps_saved(folder: Path, chains: int) -> int:
    """Count the steps of all chains, or the members trained, that a block's state tells of.

    Parameters
    ----------
    folder : Path
        Of the block.
    chains : int
        Of the block.
    """
    try:
        with safe_open(folder / "state.safetensors", framework="pt") as file:
            told = dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return 0  # nothing saved yet
    if "fit" in told:
        return chains - len({member for member, _ in json.loads(told["fit"])["queue"]})
    progress = json.loads(told.get("progress", '{"warmup": 0, "draws": 0}'))
    return chains * int(progress["warmup"] + progress["draws"])
