"""The training of a study's members: kept and told of as it goes, resumed by ``--resume``."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from study import Study

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
        If what is to be resumed was begun at another size.
    """
    folder = study.out / "training" / name
    if not study.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "size.txt"
    if note.exists() and note.read_text(encoding="utf-8") != study.label:
        raise UserError(
            f"the training in {folder} was begun at the size {note.read_text(encoding='utf-8')}, "
            f"not {study.label}: resume it unchanged, or leave --resume out to begin anew"
        )
    note.write_text(study.label, encoding="utf-8")
    before = steps_saved(folder, members.size)
    began = time.perf_counter()
    with told(folder, members.size):
        members.fit(seed=seed, run_dir=folder, resume=True)
    return Members(members, members.size - before, time.perf_counter() - began)


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
