"""Files that appear whole or not at all: write beside the target, flush to disk, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".partial"


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; on leaving without an exception it becomes `path`.

    The rename is atomic on one file system, so a reader sees the old file or the new one and a
    kill leaves at worst a temporary, which the next write of the same file overwrites.

    Parameters
    ----------
    path
        The final name.
    sync
        Flush the file and its directory to the disk, so that the file survives a power cut too.

    Yields
    ------
    Path
        The temporary name, ``.<name>.partial`` in the same directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        if sync:
            _fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
