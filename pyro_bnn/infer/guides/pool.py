"""Train blocks of members in several processes, one a core."""

from __future__ import annotations

import copy
import importlib.machinery
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import cloudpickle  # type: ignore[import-untyped]
import torch

from pyro_bnn.allocator import give_back_freed_memory
from pyro_bnn.errors import UserError
from pyro_bnn.infer.child import start_python
from pyro_bnn.infer.guides.sharing import dumps
from pyro_bnn.infer.guides.training_block import Block, Interrupt, Trained
from pyro_bnn.infer.guides.worker import Answer
from pyro_bnn.logdensity import LogDensity

__all__ = ["Pool"]


class Pool:
    """Worker processes that share a guide and a density; a context manager.

    Each imports torch and traces its graphs for itself, which takes some seconds; the data are in
    memory once, in files that all of them map. A member's random numbers depend on its seed alone,
    so that it does not matter who trains it.

    Parameters
    ----------
    workers : int
        Processes.
    guide, density
        What to train.
    directory : path, optional
        Where unfinished trainings are kept.
    save_every : int
        Epochs between two saves.

    Raises
    ------
    UserError
        If the model cannot be sent to another process.
    """

    def __init__(
        self, workers: int, guide: Any, density: LogDensity, directory: Path | None, save_every: int
    ) -> None:
        self._thread_count = max(1, torch.get_num_threads() // workers)
        self._files = tempfile.TemporaryDirectory(prefix="pyro-bnn-", ignore_cleanup_errors=True)
        job = (_bare(guide, density), density, directory, save_every)
        with _by_value(density.model):
            try:
                pickled = dumps(job, Path(self._files.name))
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                self._files.cleanup()
                raise UserError(
                    f"the model cannot be sent to other processes ({error}): take workers = 1"
                ) from error
        self._head = pickle.dumps(sys.path) + pickle.dumps(self._thread_count) + pickled
        give_back_freed_memory()
        self._threads = ThreadPoolExecutor(workers)
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._processes = [self._start() for _ in range(workers)]
        self._waiting: dict[Future[Trained], Block] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            if kind is not None:
                process.send_signal(signal.SIGINT)
            with suppress(BrokenPipeError):  # it has died with something left to read
                process.stdin.close()
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._threads.shutdown()
        self._files.cleanup()

    @property
    def free(self) -> int:
        """Processes without a block."""
        return len(self._processes) - len(self._waiting)

    @property
    def blocks(self) -> list[Block]:
        """Blocks that are being trained."""
        return list(self._waiting.values())

    def submit(self, block: Block) -> None:
        """Give a block to a free process."""
        self._waiting[self._threads.submit(self._train, block)] = block

    def finished(self, interrupt: Interrupt) -> Iterator[tuple[Block, Trained | MemoryError]]:
        """Wait for a block or more: what came of it, or that its process ran out of memory.

        Raises
        ------
        KeyboardInterrupt
            If that was asked for meanwhile.
        UserError
            What a process refused, or that one has died.
        """
        done: set[Future[Trained]] = set()
        while not done:
            if interrupt.requested:
                raise KeyboardInterrupt
            done, _ = wait(self._waiting, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            found: Trained | MemoryError
            try:
                found = future.result()
            except MemoryError as error:
                found = error
            except UserError as error:
                if interrupt.requested:  # Ctrl-C goes to all processes of a terminal
                    raise KeyboardInterrupt from error
                raise
            yield self._waiting.pop(future), found

    def _start(self) -> subprocess.Popen[bytes]:
        code = "from pyro_bnn.infer.guides.worker import main; main()"
        process = start_python(code, threads=self._thread_count, stdin=subprocess.PIPE)
        self._idle.put(process)
        return process

    def _train(self, block: Block) -> Trained:
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not getattr(process, "told", False):
                process.stdin.write(self._head)
                process.told = True  # type: ignore[attr-defined]
            process.stdin.write(pickle.dumps(block))
            process.stdin.flush()
            answer: Answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            numbers = ", ".join(str(member) for member, _ in block.entries[:3])
            raise UserError(
                f"the process that trained member {numbers} and others of its block ended with "
                f"code {process.wait()}: it may have run out of memory; what was finished is "
                "saved, resume with fewer workers or a smaller block"
            ) from error
        self._idle.put(process)
        if answer.out_of_memory:
            raise MemoryError(answer.out_of_memory)
        if answer.refused:
            raise UserError(answer.refused)
        if answer.failed:
            raise RuntimeError(f"in a worker process:\n{answer.failed}")
        assert isinstance(answer.trained, Trained)
        return answer.trained


def _bare(guide: Any, density: LogDensity) -> Any:
    """Copy a guide that holds the density and no state."""
    other = copy.copy(guide)
    other.model = other._density = density
    other._state = {}
    if hasattr(other, "guide"):
        other.guide = _bare(other.guide, density)
    return other


@contextmanager
def _by_value(model: Any) -> Iterator[None]:
    """Send the module that a model was written in along, where others cannot import it."""
    name = getattr(model, "__module__", None) or type(model).__module__
    top = name.partition(".")[0]
    known = top == "__main__" or importlib.machinery.PathFinder.find_spec(top) is not None
    if known or name not in sys.modules:
        yield
        return
    cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[name])
