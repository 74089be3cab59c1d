"""Another process of this Python, which finds the modules that this one finds."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["start_python"]


def start_python(
    code: str, *arguments: str, threads: int, stdin: int, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a process whose answers come through a pipe.

    Parameters
    ----------
    code : str
        What it runs; a constant of the caller.
    *arguments : str
        What it finds in ``sys.argv``.
    threads : int
        Of its arithmetic, as OpenMP is told before anything is imported.
    stdin, stderr : int
        As `subprocess.Popen` takes them.
    """
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": str(threads),
        },
    )
