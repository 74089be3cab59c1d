"""How much of the machine is free."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["idle_cores", "threads_to_use"]


def threads_to_use() -> int:
    """Return the number of idle cores, or what ``OMP_NUM_THREADS`` says if that is less."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    most = int(asked) if asked.isdecimal() else 0
    idle = idle_cores()
    return min(most, idle) if most else idle


def idle_cores(seconds: float = 0.2) -> int:
    """Count the cores that stand idle, at least one.

    Threads of one operator wait for each other at every step; beside another busy process two of
    them can be far slower than one. So as many are used as are free at the start.

    Parameters
    ----------
    seconds : float
        How long to watch.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    first = _idle_seconds()
    if first is None or cores is None:
        return cores or 1
    time.sleep(seconds)
    second = _idle_seconds()
    assert second is not None
    return min(cores, max(1, round((second - first) / seconds)))


def _idle_seconds() -> float | None:
    """Idle time of all cores since boot, where the system tells it."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
