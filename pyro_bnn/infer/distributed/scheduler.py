"""`Scheduler`: tasks in this process, on workers of this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pyro_bnn.errors import UserError

__all__ = ["GPU", "Scheduler"]

T = TypeVar("T")
R = TypeVar("R")

GPU = "GPU"
"""The resource that workers with a graphics card announce: ``dask worker --resources GPU=1``."""

POLL_SECONDS = 1.0
ANSWERS_WITHIN = 10
"""Seconds in which a scheduler at an address has to answer."""

DEATHS = 10
"""Workers of this machine that may die under a task before it is given up."""

_FAILED = ("error", "cancelled", "lost")

_alone = threading.Lock()


class Scheduler:
    """Runs independent tasks and returns their results in order.

    A context manager. A task whose worker dies is run again on another one; tasks that write must
    therefore go on from what is on disk, or write the same again.

    Parameters
    ----------
    address : str
        ``"none"``: one task after another in this process. ``"local"``: worker processes of this
        machine. Otherwise the address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``, or
        the path of its scheduler file.
    workers : int, optional
        Worker processes of a local cluster; one a core, or one a GPU, by default.
    dashboard : bool
        Whether a local cluster has Dask's dashboard.

    Raises
    ------
    UserError
        If Dask's scheduler is not installed, or does not answer at the address.

    Examples
    --------
    >>> with Scheduler("none") as scheduler:
    ...     list(scheduler.map(abs, [-1, 2, -3]))
    [1, 2, 3]
    """

    def __init__(
        self,
        address: str = "none",
        *,
        workers: int | None = None,
        dashboard: bool = True,
    ) -> None:
        if workers is not None and (workers < 1 or address != "local"):
            raise UserError(
                f"{workers} workers: give at least 1, and only with the scheduler 'local'; a "
                "cluster has the workers that it was started with"
            )
        self.address = address
        self._workers = workers
        self._gpu = False
        self._dashboard = dashboard
        self._client: Any = None
        self._open = contextlib.ExitStack()

    def for_device(self, device: str) -> Self:
        """Let each task take a GPU for itself, by the resource tag, if that is the device."""
        self._gpu = device.startswith("cuda")
        return self

    def __enter__(self) -> Self:
        if self.address != "none":
            with contextlib.ExitStack() as stack:
                self._client = stack.enter_context(self._connect(stack))
                self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, traceback)
        self._client = None

    @property
    def description(self) -> str:
        """Where tasks go, and where to watch them."""
        if self._client is None:
            return "this process"
        info = self._client.scheduler_info(n_workers=-1)
        count = len(info["workers"])
        link = (
            f", dashboard {self._client.dashboard_link}" if "dashboard" in info["services"] else ""
        )
        return f"{info['address']}, {count} worker{'s' if count != 1 else ''}{link}"

    def map(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        watch: Callable[[Sequence[bool]], None] | None = None,
    ) -> Iterator[R]:
        """Run a function on every task; yield the results in the order of the tasks.

        Parameters
        ----------
        function : callable
            That workers can unpickle.
        tasks : iterable
            Arguments, one each.
        watch : callable, optional
            Called with which tasks are done: every second, or without a cluster after each task,
            and at the end.

        Raises
        ------
        UserError
            If a task raised one, or its workers died again and again.
        """
        listed = list(tasks)
        if self._client is None:
            for number, task in enumerate(listed):
                yield function(task)
                if watch is not None:
                    watch([place <= number for place in range(len(listed))])
            return
        run = uuid.uuid4().hex
        futures = [
            self._client.submit(
                _one_at_a_time,
                function,
                task,
                key=f"{_name(function)}-{number}-{run}",
                resources={GPU: 1} if self._gpu else None,
            )
            for number, task in enumerate(listed)
        ]
        try:
            for number, future in enumerate(futures):
                yield self._result(number, futures, watch)
                future.release()
            if watch is not None:
                watch([True] * len(futures))
        finally:
            self._client.cancel([f for f in futures if not f.done()])

    def _result(
        self, number: int, futures: Sequence[Any], watch: Callable[[Sequence[bool]], None] | None
    ) -> Any:
        """Wait for one task, or for the failure of any."""
        from distributed import KilledWorker

        future = futures[number]
        while True:
            try:
                return future.result(POLL_SECONDS)
            except TimeoutError:
                pass
            except KilledWorker as error:
                raise UserError(
                    f"the workers of task {error.task} died one after another: do they have "
                    "memory enough? What they have saved stays"
                ) from error
            # Only after a second of waiting: looking at all after each one would be quadratic.
            left = futures[number:]
            future = next((f for f in left if f.status in _FAILED), future)
            if watch is not None:
                watch([True] * number + [f.done() for f in left])

    def _connect(self, stack: contextlib.ExitStack) -> Any:
        try:
            from distributed import Client
        except ImportError as error:
            raise UserError(
                f"--scheduler {self.address} needs Dask's scheduler: pip install "
                "'pyro-bnn[distributed]'"
            ) from error
        if self.address == "local":
            return Client(stack.enter_context(self._local_cluster()), set_as_default=False)
        is_file = os.path.isfile(self.address)
        try:
            if is_file and "address" not in json.loads(Path(self.address).read_text("utf-8")):
                raise ValueError("a file without an address")
            return Client(
                None if is_file else self.address,
                scheduler_file=self.address if is_file else None,
                set_as_default=False,
                timeout=ANSWERS_WITHIN,
            )
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"no Dask scheduler answers at {self.address}: give its address, 'local' or 'none'"
            ) from error

    def _local_cluster(self) -> Any:
        import dask
        import torch
        from distributed import Nanny, SpecCluster
        from distributed import Scheduler as DaskScheduler

        gpus = torch.cuda.device_count() if self._gpu else 0
        count = self._workers or gpus or os.cpu_count() or 1
        workers = {
            number: {
                "cls": Nanny,
                "options": {
                    "nthreads": 1,
                    "memory_limit": 0,  # torch's memory is not Dask's to spill
                    "silence_logs": logging.ERROR,
                    "resources": {GPU: 1} if self._gpu else None,
                    "env": {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else None,
                },
            }
            for number in range(count)
        }
        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}):
            return SpecCluster(
                workers,
                {
                    "cls": DaskScheduler,
                    "options": {
                        "host": "127.0.0.1",
                        "port": 0,
                        "dashboard": self._dashboard,
                        "dashboard_address": "127.0.0.1:0",
                    },
                },
                silence_logs=logging.ERROR,
            )


def _one_at_a_time(function: Callable[[T], R], task: T) -> R:
    """Run a task; a second thread of the worker waits, since Pyro's state is the process's.

    Dask arrays that the task reads are its own affair: as tasks of the cluster they would wait for
    the worker that waits for them.
    """
    import dask

    with _alone, dask.config.set(scheduler="synchronous"):
        return function(task)


def _name(function: Any) -> str:
    """Return what the dashboard calls the tasks of a function."""
    return str(getattr(function, "__name__", type(function).__name__)).strip("_").lower()
