"""Train the members of a guide in blocks, so that a kill loses a few epochs at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.errors import UserError
from pyro_bnn.halving import halved, ran_out_of_memory
from pyro_bnn.infer.guides.batching import Batching, choose_batching
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.failure import Failure, judge
from pyro_bnn.infer.guides.pool import Pool
from pyro_bnn.infer.guides.seeds import member_seeds
from pyro_bnn.infer.guides.training_block import Block, Trained, train_block
from pyro_bnn.infer.interrupt import FinishStepFirst
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import load_state, save_state

__all__ = ["Fitted", "Fitting", "Part"]


class Trainable(Protocol):
    """What `Fitting` asks of a guide."""

    size: int
    retries: int
    block: int | None
    workers: int
    fail_above: float | None

    def numbers(self, density: LogDensity) -> int:
        """Parameters of a member."""

    def take_step(self, density: LogDensity, sources: Any) -> Any:
        """Return a function that computes one gradient of some members."""

    def train(
        self, density: LogDensity, sources: Any, resume: Any, save: Any
    ) -> tuple[Parameters, Tensor, int]:
        """Train a block of members."""


class Part(NamedTuple):
    """The members of a block that are left, and their state: in memory, or in a file.

    Attributes
    ----------
    members, seeds : list of int
        Numbers and seeds.
    state : dict of str to Tensor, or Path
        ``(member, ...)`` each.
    """

    members: list[int]
    seeds: list[int]
    state: Parameters | Path

    def load(self, device: torch.device) -> Parameters:
        """Return the state."""
        if not isinstance(self.state, Path):
            return self.state
        return {name: value.to(device) for name, value in load_state(self.state)[0].items()}


class Fitted(NamedTuple):
    """The outcome of a training.

    Attributes
    ----------
    parts : list of Part
        Blocks, in the order of their first members.
    members, seeds : list of int
        Numbers and seeds of all members that are left, in order.
    failures : list of Failure
        Every training that failed.
    gradients : int
        Gradients of all members together.
    batching : str
        How many members were trained at once, and why.
    """

    parts: list[Part]
    members: list[int]
    seeds: list[int]
    failures: list[Failure]
    gradients: int
    batching: str

    def state(self, device: torch.device) -> Parameters:
        """Return the state of all members in their order, ``(member, ...)`` each."""
        loaded = [part.load(device) for part in self.parts]
        numbers = [member for part in self.parts for member in part.members]
        order = torch.tensor(sorted(range(len(numbers)), key=numbers.__getitem__), device=device)
        joined = {name: torch.cat([part[name] for part in loaded]) for name in loaded[0]}
        return {name: value[order.to(value.device)] for name, value in joined.items()}


class Fitting:
    """A queue of members to train.

    Members that fail go to its end again, with another seed, as often as the guide's `retries`
    say; after that they are left out. With a run directory, no more than the blocks that are
    being trained are in memory: a finished one is a file in ``members/``.

    Parameters
    ----------
    guide : Guide
        What to train.
    density : LogDensity
        The posterior.
    seed : int, optional
        Of the first member; that of the run which is resumed, or drawn from torch's generator.
    run_dir : path, optional
        Where the state is kept: ``state.safetensors``, ``members/`` and ``training/``.
    save_every : int
        Epochs between two saves.
    """

    def __init__(
        self,
        guide: Trainable,
        density: LogDensity,
        seed: int | None,
        run_dir: str | Path | None,
        save_every: int,
    ) -> None:
        self._guide = guide
        self._density = density
        self._seed = seed
        self._directory = None if run_dir is None else Path(run_dir)
        self._save_every = save_every
        self._queue = [(member, 0) for member in range(guide.size)]
        self._batching: Batching | None = None
        self._parts: list[Part] = []
        self._failures: list[Failure] = []
        self._gradients = 0

    def run(self, *, resume: bool) -> Fitted:
        """Train all members that are not trained yet."""
        if self._density.device.type == "cpu":
            keep_freed_memory()
        self._load(resume=resume)
        if self._seed is None:
            self._seed = int(torch.randint(2**31, ()))
        if self._queue and self._batching is None:
            self._batching = choose_batching(self._guide, self._density)
        with FinishStepFirst() as interrupt:
            if self._guide.workers > 1 and len(self._queue) > 1:
                self._run_in_processes(interrupt)
            while self._queue:
                block = self._take(1)
                try:
                    found = train_block(
                        self._guide,
                        self._density,
                        block,
                        self._directory,
                        self._save_every,
                        interrupt,
                    )
                except BaseException as error:
                    self._give_back([block])
                    if not ran_out_of_memory(error):
                        raise
                    self._halve(block, error)
                    continue
                self._sort_out(block, found)
                self._save()
        if not self._parts:
            raise UserError(
                f"all {self._guide.size} members failed to converge; the first: "
                f"{self._failures[0]}; lower the learning rate or check the model"
            )
        parts = sorted(self._parts, key=lambda part: part.members[0])
        left = sorted(pair for part in parts for pair in zip(part.members, part.seeds, strict=True))
        members, seeds = [member for member, _ in left], [seed for _, seed in left]
        told = self._told()
        return Fitted(parts, members, seeds, self._failures, self._gradients, told)

    def _run_in_processes(self, interrupt: FinishStepFirst) -> None:
        workers = min(self._guide.workers, len(self._queue))
        with Pool(workers, self._guide, self._density, self._directory, self._save_every) as pool:
            while self._queue or pool.blocks:
                while self._queue and pool.free:
                    pool.submit(self._take(workers))
                try:
                    for block, found in pool.finished(interrupt):
                        if isinstance(found, MemoryError):
                            self._queue = [*block.entries, *self._queue]
                            self._halve(block, found)
                            continue
                        self._sort_out(block, found)
                        self._save(pool.blocks)
                except KeyboardInterrupt:
                    self._give_back(pool.blocks)
                    self._save()
                    raise

    def _take(self, workers: int) -> Block:
        """Take the next block from the queue, small enough for every worker to have one."""
        assert self._batching is not None
        share = -(-self._guide.size // workers)
        size = min(self._batching.block, share)
        entries, self._queue = self._queue[:size], self._queue[size:]
        return Block(entries, [self._seed_of(*entry) for entry in entries])

    def _give_back(self, blocks: list[Block]) -> None:
        """Put unfinished blocks first again, and save what there is if a training is."""
        self._queue = [entry for block in blocks for entry in block.entries] + self._queue
        if self._directory is not None and any(b.file(self._directory).is_file() for b in blocks):
            self._save()

    def _halve(self, block: Block, error: BaseException) -> None:
        """Train fewer members at once from here on, since those of a block did not fit."""
        assert self._batching is not None
        size = len(block.entries)
        fewer = halved(size, "training", "members", error)
        if fewer < self._batching.block:  # another process may have found out before
            self._batching = Batching(fewer, f"{size} did not fit into memory")

    def _told(self) -> str:
        assert self._batching is not None
        block = min(self._batching.block, self._guide.size)
        if self._guide.workers > 1:
            block = min(block, -(-self._guide.size // self._guide.workers))
        at_once = "one member at a time" if block == 1 else f"{block} members at once"
        processes = (
            f" in each of {self._guide.workers} processes" if self._guide.workers > 1 else ""
        )
        return f"{at_once}{processes}: {self._batching.reason}"

    def _seed_of(self, member: int, attempt: int) -> int:
        assert self._seed is not None
        return member_seeds(self._seed, member + 1, attempt)[member]

    def _sort_out(self, block: Block, found: Trained) -> None:
        state = found.state
        self._gradients += found.gradients * len(block.entries)
        finite = torch.stack([v.flatten(1).isfinite().all(1) for v in state.values()]).all(0)
        verdicts = judge(found.losses, finite, self._guide.fail_above)
        kept = []
        for row, ((member, attempt), verdict) in enumerate(
            zip(block.entries, verdicts, strict=True)
        ):
            if verdict is None:
                kept.append(row)
                continue
            self._failures.append(Failure(member, block.seeds[row], *verdict))
            if attempt < self._guide.retries:
                self._queue.append((member, attempt + 1))
        if kept:
            rows = torch.tensor(kept)
            left = {name: value[rows.to(value.device)] for name, value in state.items()}
            members = [block.entries[row][0] for row in kept]
            seeds = [block.seeds[row] for row in kept]
            self._parts.append(Part(members, seeds, self._stored(left)))
        if self._directory is not None:
            block.file(self._directory).unlink(missing_ok=True)

    def _stored(self, state: Parameters) -> Parameters | Path:
        if self._directory is None:
            return state
        file = self._directory / "members" / f"{len(self._parts):06d}.safetensors"
        save_state(file, state, {})
        return file

    def _save(self, in_progress: list[Block] | None = None) -> None:
        if self._directory is None:
            return
        assert self._batching is not None
        unfinished = [entry for block in in_progress or [] for entry in block.entries]
        record = {
            "seed": self._seed,
            "size": self._guide.size,
            "queue": [*unfinished, *self._queue],
            "batching": self._batching,
            "parts": [
                [part.members, part.seeds, Path(str(part.state)).name] for part in self._parts
            ],
            "failures": self._failures,
            "gradients": self._gradients,
        }
        save_state(self._directory / "state.safetensors", {}, {"fit": json.dumps(record)})

    def _load(self, *, resume: bool) -> None:
        """Take over what an earlier attempt has saved."""
        if self._directory is None or not (self._directory / "state.safetensors").is_file():
            return
        file, where = self._directory / "state.safetensors", self._directory
        if not resume:
            raise UserError(
                f"{where} already holds a run: go on with it by resume=True, or choose another "
                "run_dir"
            )
        _, metadata = load_state(file)
        if "fit" not in metadata:
            raise UserError(f"{file} is the state of a sampler, not of a guide")
        record = json.loads(metadata["fit"])
        if self._seed is None:
            self._seed = record["seed"]
        for name, asked in (("seed", self._seed), ("size", self._guide.size)):
            if record[name] != asked:
                raise UserError(
                    f"the training in {where} was started with {name} {record[name]}, not {asked}: "
                    "resume it unchanged, or choose another run_dir"
                )
        self._queue = [(member, attempt) for member, attempt in record["queue"]]
        self._batching = Batching(*record["batching"])
        if self._guide.block is not None and self._guide.block != self._batching.block:
            self._batching = Batching(self._guide.block, "as asked for")
        folder = where / "members"
        self._parts = [
            Part(members, seeds, folder / name) for members, seeds, name in record["parts"]
        ]
        self._failures = [Failure(*failure) for failure in record["failures"]]
        self._gradients = record["gradients"]
