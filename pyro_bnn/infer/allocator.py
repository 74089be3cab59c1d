"""Keep freed memory in the process, as torch's allocator does on GPUs but not on CPUs."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LIMIT = 2**30


def keep_freed_memory() -> bool:
    """Have glibc reuse large blocks instead of returning them to the system at every free.

    A batched gradient allocates and frees activations of several megabytes at each operator.
    By default glibc maps each of them anew, and the page faults cost more than the arithmetic.

    Returns
    -------
    bool
        Whether the C library is glibc and took the setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LIMIT)) and bool(mallopt(_M_TRIM_THRESHOLD, _LIMIT))
