"""Files that appear whole or not at all: write beside the target, flush to disk, rename."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pyro_bnn.errors import UserError
from pyro_bnn.trace.seal import seal

TEMPORARY_SUFFIX = ".partial"

_WRITE_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@contextmanager
def replacing(path: Path, *, sync: bool = True, sealed: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; on leaving without an exception it becomes `path`.

    The rename is atomic on one file system, so a reader sees the old file or the new one and a
    kill leaves at worst a temporary, which the next write of the same file overwrites.

    Parameters
    ----------
    path
        The final name.
    sync
        Flush the file and its directory to the disk, so that the file survives a power cut too.
    sealed
        Append a checksum (see `pyro_bnn.trace.seal`).

    Raises
    ------
    UserError
        If the disk is full, or the directory cannot be written; what was there stays.

    Yields
    ------
    Path
        The temporary name, ``.<name>.partial`` in the same directory.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sealed:
            seal(temporary)
        if sync:
            _fsync(temporary)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if reason := _failed_write(error, temporary):
            raise UserError(
                f"{path} cannot be written ({reason}): make room or give yourself the right to "
                "write there, and run the command again; what was saved before is whole"
            ) from error
        raise
    if sync:
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed_write(error: BaseException, file: Path) -> str | None:
    """Say why a file could not be written, or None if the error is of another kind."""
    if isinstance(error, OSError):
        about_it = error.filename is not None and str(error.filename) == str(file)
        if about_it or error.errno in _WRITE_ERRORS:
            return str(error.strerror)
    # HDF5 and safetensors tell the failure of a write in words of their own.
    if isinstance(error, SafetensorError | RuntimeError | OSError):
        found = re.search(r"HDF error|os error \d+|I/O error", str(error))
        return None if found is None else f"{found[0]}; is the disk full?"
    return None
