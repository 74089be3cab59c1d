"""The training of a study's members: kept and told of as it goes, resumed by ``--resume``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from study import Study
from torch import Tensor

from pyro_bnn import LogDensity
from pyro_bnn.errors import UserError
from pyro_bnn.infer.distributed.meter import steps_saved
from pyro_bnn.infer.guides import Ensemble, Guide
from pyro_bnn.infer.guides.layer_start import init_to_layers

LOOK_SECONDS = 20.0


class Members(NamedTuple):
    """Trained members, how many of them this process has trained, and the seconds that took."""

    ensemble: Ensemble
    count: int
    seconds: float


def ensemble(study: Study, guide: Guide, size: int, block: int) -> Ensemble:
    """Train members from weights as layers start them, in blocks and in the study's processes."""
    guide.init_strategy = init_to_layers(guide.model)
    members = Ensemble(guide, size, block=block, retries=2, workers=study.workers)
    return fit(study, members, "members", study.seed).ensemble


def fit(study: Study, members: Ensemble, name: str, seed: int) -> Members:
    """Train members, each finished block kept in the study's folder under a name.

    Raises
    ------
    UserError
        If what is to be resumed was begun at another size, with other settings or other data.
    """
    folder = study.out / "training" / name
    if not study.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "begun.json"
    facts = facts_of(study, members)
    if note.exists():
        compare(folder, json.loads(note.read_text(encoding="utf-8")), facts)
    note.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    before = steps_saved(folder, members.size)
    began = time.perf_counter()
    with told(folder, members.size):
        members.fit(seed=seed, run_dir=folder, resume=True)
    return Members(members, members.size - before, time.perf_counter() - began)


def facts_of(study: Study, members: Ensemble) -> dict[str, str]:
    """Return what a resumed training must have in common with its beginning, by name."""
    assert isinstance(members.model, LogDensity)
    settings = dataclasses.asdict(members.training)
    return {
        "size": study.label,
        **{f"setting {name}": str(value) for name, value in settings.items()},
        "training data": fingerprint(members.model.args),
    }


def fingerprint(tensors: Sequence[Tensor]) -> str:
    """Name tensors by their shapes and the beginning of a hash of all that they hold."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tensor.dtype, tuple(tensor.shape))).encode("utf-8"))
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    shapes = " and ".join(" x ".join(map(str, tensor.shape)) for tensor in tensors)
    return f"{shapes}, sha256 {found.hexdigest()[:12]}"


def compare(folder: Path, before: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to go on where a fact has changed; name the first one that has."""
    for name, value in now.items():
        if before.get(name) != value:
            raise UserError(
                f"the training in {folder} was begun with the {name} {before.get(name)}, not "
                f"{value}: resume it unchanged, or leave --resume out to begin anew"
            )


@contextmanager
def told(folder: Path, size: int) -> Iterator[None]:
    """Print now and then how many members are trained."""
    ended = threading.Event()
    began = time.perf_counter()

    def look() -> None:
        last = steps_saved(folder, size)
        while not ended.wait(LOOK_SECONDS):
            done = steps_saved(folder, size)
            if done > last:
                seconds = time.perf_counter() - began
                line = f"{folder.name}: {done:,} of {size:,} members trained, {seconds:.0f} s"
                print(line, file=sys.stderr, flush=True)
            last = done

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
