"""Reductions cut into tasks whose results do not depend on who computes them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Map", "in_threads", "one_thread"]

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""``mapped(function, tasks)`` yields the results in the order of the tasks, as `map` does.

A task is a small object: arrays that are lazy travel as the name of their file, those in memory as
their values.
"""


def in_threads(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
    """Map in as many threads as torch has here, with no more tasks begun than that and one.

    Parameters
    ----------
    function : callable
        Of one task.
    tasks : iterable
        Arguments.

    Yields
    ------
    object
        Results in the order of the tasks.

    Examples
    --------
    >>> list(in_threads(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    count = torch.get_num_threads()
    tasks = iter(tasks)
    ahead = list(itertools.islice(tasks, min(count, 2)))
    if len(ahead) < 2:
        yield from map(function, itertools.chain(ahead, tasks))
        return
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for task in itertools.chain(ahead, tasks):
                waiting.append(pool.submit(function, task))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    # What a thread sets is the default of those that start later.
    torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of torch: how products are split up changes how they are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
