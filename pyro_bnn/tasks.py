"""Reductions cut into tasks whose results do not depend on who computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["Map", "one_thread"]

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""``mapped(function, tasks)`` yields the results in the order of the tasks, as `map` does.

A task is a small object: arrays that are lazy travel as the name of their file, those in memory as
their values. Tasks open and read files, which the HDF5 library bears in processes, not in threads.
"""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of torch: how products are split up changes how they are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
