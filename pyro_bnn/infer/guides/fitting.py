"""Train the members of a guide, block after block, so that a kill loses a few epochs at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.infer.guides.failure import Failure, judge
from pyro_bnn.infer.guides.seeds import generators, member_seeds
from pyro_bnn.infer.interrupt import FinishStepFirst
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import load_state, save_state

__all__ = ["Fitted", "Fitting"]

_BLOCK_BYTES = 2**28
_COPIES = 10  # of a member's parameters: gradient, moments and what passes between operators


class Trainable(Protocol):
    """What `Fitting` asks of a guide."""

    size: int
    retries: int
    block: int | None
    fail_above: float | None

    def numbers(self, density: LogDensity) -> int:
        """Parameters of a member."""

    def train(
        self, density: LogDensity, sources: Any, resume: Any, save: Any
    ) -> tuple[Parameters, Tensor, int]:
        """Train a block of members."""


class Fitted(NamedTuple):
    """The outcome of a training.

    Attributes
    ----------
    state : dict of str to Tensor
        ``(member, ...)`` of the members that are left, ``losses`` among them.
    members, seeds : list of int
        Their numbers and seeds.
    failures : list of Failure
        Every training that failed.
    gradients : int
        Gradients of all members together.
    """

    state: Parameters
    members: list[int]
    seeds: list[int]
    failures: list[Failure]
    gradients: int


class Fitting:
    """A queue of members to train.

    Members that fail go to its end again, with another seed, as often as the guide's `retries`
    say; after that they are left out.

    Parameters
    ----------
    guide : Guide
        What to train.
    density : LogDensity
        The posterior.
    seed : int, optional
        Of the first member; that of the run which is resumed, or drawn from torch's generator.
    run_dir : path, optional
        Where the state is kept, in ``state.safetensors``.
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
        self._file = None if run_dir is None else Path(run_dir) / "state.safetensors"
        self._save_every = save_every
        self._queue = [(member, 0) for member in range(guide.size)]
        self._members: list[int] = []
        self._seeds: list[int] = []
        self._failures: list[Failure] = []
        self._gradients = 0
        self._state: Parameters = {}

    def run(self, *, resume: bool) -> Fitted:
        """Train all members that are not trained yet."""
        training = self._load(resume=resume)
        if self._seed is None:
            self._seed = int(torch.randint(2**31, ()))
        with FinishStepFirst() as interrupt:
            while self._queue:
                block, self._queue = self._take()
                seeds = [self._seed_of(*entry) for entry in block]
                saves = 0

                def save(tensors: Mapping[str, Tensor], block: Any = block) -> None:
                    nonlocal saves
                    saves += 1
                    if saves % self._save_every == 0 or interrupt.requested:
                        self._save(block, tensors)
                    if interrupt.requested:
                        raise KeyboardInterrupt

                sources = generators(seeds, self._density.device)
                found = self._guide.train(self._density, sources, training, save)
                training = None
                self._sort_out(block, seeds, *found)
                self._save([], {})
        if not self._members:
            raise UserError(
                f"all {self._guide.size} members failed to converge; the first: "
                f"{self._failures[0]}; lower the learning rate or check the model"
            )
        order = sorted(range(len(self._members)), key=self._members.__getitem__)
        picked = torch.tensor(order, device=self._density.device)
        state = {name: value[picked.to(value.device)] for name, value in self._state.items()}
        members, seeds = ([values[i] for i in order] for values in (self._members, self._seeds))
        return Fitted(state, members, seeds, self._failures, self._gradients)

    def _take(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        size = self._guide.block
        if size is None:
            number = torch.finfo(self._density.dtype).bits // 8
            one = _COPIES * number * self._guide.numbers(self._density)
            size = min(64, max(1, _BLOCK_BYTES // one))
        return self._queue[:size], self._queue[size:]

    def _seed_of(self, member: int, attempt: int) -> int:
        assert self._seed is not None
        return member_seeds(self._seed, member + 1, attempt)[member]

    def _sort_out(
        self,
        block: list[tuple[int, int]],
        seeds: list[int],
        state: Parameters,
        losses: Tensor,
        gradients: int,
    ) -> None:
        self._gradients += gradients * len(block)
        finite = torch.stack([v.flatten(1).isfinite().all(1) for v in state.values()]).all(0)
        verdicts = judge(losses, finite, self._guide.fail_above)
        kept = []
        for row, ((member, attempt), verdict) in enumerate(zip(block, verdicts, strict=True)):
            if verdict is None:
                kept.append(row)
                self._members.append(member)
                self._seeds.append(seeds[row])
                continue
            self._failures.append(Failure(member, seeds[row], *verdict))
            if attempt < self._guide.retries:
                self._queue.append((member, attempt + 1))
        if not kept:
            return
        for name, value in state.items():
            rows = value[torch.tensor(kept, device=value.device)]
            before = self._state.get(name)
            self._state[name] = rows if before is None else torch.cat([before, rows])

    def _save(self, block: list[tuple[int, int]], training: Mapping[str, Tensor]) -> None:
        if self._file is None:
            return
        tensors = {f"state.{name}": value for name, value in self._state.items()}
        tensors |= {f"training.{name}": value for name, value in training.items()}
        record = {
            "seed": self._seed,
            "size": self._guide.size,
            "queue": [*block, *self._queue],
            "members": self._members,
            "seeds": self._seeds,
            "failures": self._failures,
            "gradients": self._gradients,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        save_state(self._file, tensors, {"fit": json.dumps(record)})

    def _load(self, *, resume: bool) -> Parameters | None:
        """Take over a saved state; returns the training of its unfinished block."""
        if self._file is None or not self._file.is_file():
            return None
        where = self._file.parent
        if not resume:
            raise UserError(
                f"{where} already holds a run: go on with it by resume=True, or choose another "
                "run_dir"
            )
        tensors, metadata = load_state(self._file)
        if "fit" not in metadata:
            raise UserError(f"{self._file} is the state of a sampler, not of a guide")
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
        self._members, self._seeds = record["members"], record["seeds"]
        self._failures = [Failure(*failure) for failure in record["failures"]]
        self._gradients = record["gradients"]
        parts: dict[str, Parameters] = {"state": {}, "training": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        device = self._density.device
        self._state = {name: value.to(device) for name, value in parts["state"].items()}
        return parts["training"] or None
