"""What the C library does with freed memory: kept for the next gradient, or given back."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["give_back_freed_memory", "keep_freed_memory", "return_freed_memory"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE = 2**30
_SMALL = 2**16


def keep_freed_memory() -> bool:
    """Have glibc reuse large blocks instead of returning them to the system at every free.

    A batched gradient allocates and frees activations of several megabytes at each operator.
    By default glibc maps each of them anew, and the page faults cost more than the arithmetic.

    Returns
    -------
    bool
        Whether the C library is glibc and took the setting.
    """
    return _set_thresholds(_LARGE)


def return_freed_memory() -> bool:
    """Have glibc return blocks of 64 KiB and more to the system as soon as they are freed.

    Work that goes through thousands of networks one after another allocates blocks of many sizes.
    By default glibc raises its threshold to the largest block that was freed, carves the next ones
    out of its heap, and the heap grows with every network through the gaps that are left.

    Returns
    -------
    bool
        Whether the C library is glibc and took the setting.
    """
    return _set_thresholds(_SMALL)


def give_back_freed_memory() -> bool:
    """Have glibc return what is free now, once, however it treats what will be freed.

    A process that has read its data and leaves the work to others would hold what the reading took
    for as long as they work.

    Returns
    -------
    bool
        Whether the C library is glibc and had something to return.
    """
    glibc = _glibc()
    return glibc is not None and bool(glibc.malloc_trim(0))


def _set_thresholds(size: int) -> bool:
    glibc = _glibc()
    if glibc is None:
        return False
    mallopt = glibc.mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, size)) and bool(mallopt(_M_TRIM_THRESHOLD, size))


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process, if it is glibc."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
