"""Blocks that become smaller when memory runs out in one of them.

How much memory a block takes is known only when it is worked through: activations depend on the
model. Sizes are chosen by a rule of thumb, and halved where that was too much.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from pyro_bnn.errors import UserError

__all__ = ["INPUTS_AT_ONCE", "Halving", "OutOfMemory", "halved", "ran_out_of_memory"]

T = TypeVar("T")

INPUTS_AT_ONCE = 2**20
"""Numbers of inputs, over rows and networks, that go through networks at once.

Where activations are 64 times as many, they weigh 256 MiB in single precision.
"""

_ALLOCATOR = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc", re.IGNORECASE
)
_told = logging.getLogger(__name__)


class OutOfMemory(UserError):
    """A block that does not fit into memory and cannot be made smaller."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an allocator's: of Python, NumPy, torch on a CPU or a GPU.

    Examples
    --------
    >>> ran_out_of_memory(MemoryError()), ran_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and _ALLOCATOR.search(str(error)) is not None


def halved(size: int, what: str, unit: str, error: BaseException) -> int:
    """Return half the size of a block that did not fit, and say so.

    Parameters
    ----------
    size : int
        Of the block in which memory ran out.
    what, unit : str
        What is computed, and what a block consists of, in the plural.
    error : BaseException
        What the allocator raised.

    Raises
    ------
    OutOfMemory
        If the block had the size one.
    """
    if size <= 1:
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        single = f" ({asked[1]} in one tensor)" if asked else ""
        raise OutOfMemory(
            f"{what}: memory ran out{single} with {unit} taken one at a time: end other programs, "
            "or take a machine with more memory"
        ) from error
    _told.warning(
        "%s: %d %s at once do not fit into memory, going on with %d", what, size, unit, size // 2
    )
    return size // 2


class Halving:
    """The size of a block, halved whenever one does not fit; later blocks keep the smaller size.

    One that goes through rows may work through draws by another: where a single draw of so many
    rows does not fit, the rows are halved.

    Parameters
    ----------
    size : int
        Of a block, to begin with.
    what, unit : str
        What is computed, and what a block consists of, in the plural.

    Examples
    --------
    >>> def work(span):
    ...     if span.stop - span.start > 2:
    ...         raise MemoryError
    ...     return span.start, span.stop
    >>> list(Halving(4, "sums", "numbers").run(work, 5))
    [(0, 2), (2, 4), (4, 5)]
    """

    def __init__(self, size: int, what: str, unit: str) -> None:
        self.size = size
        self._what, self._unit = what, unit

    def run(self, work: Callable[[slice], T], count: int) -> Iterator[T]:
        """Yield what `work` returns of consecutive blocks of `count` things.

        Parameters
        ----------
        work : callable
            Takes the slice of a block. It is called again for a part of the same block after it
            has raised, so it changes nothing but what it returns.
        count : int
            Things in all.

        Raises
        ------
        OutOfMemory
            If a block of one thing does not fit.
        """
        start = 0
        while start < count:
            span = slice(start, min(start + self.size, count))
            try:
                found = work(span)
            except (RuntimeError, MemoryError, OutOfMemory) as error:
                if not ran_out_of_memory(error):
                    raise
                self.size = halved(span.stop - span.start, self._what, self._unit, error)
                continue
            yield found
            start = span.stop
