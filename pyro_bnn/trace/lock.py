"""One process a run directory: a lock that names its holder and dies with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_bnn.errors import UserError

try:
    import fcntl
except ImportError:  # the system has no such locks; runs there are not kept apart
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"
_held: set[Path] = set()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory; within one process it may be held several times over.

    The operating system releases the lock of a process that is killed. Where a file system has no
    locks, as some of clusters are mounted, runs are not kept apart.

    Parameters
    ----------
    directory
        Made if it is missing.

    Raises
    ------
    UserError
        If another process holds it, which is named; or if it cannot be written.
    """
    key = directory.resolve()
    if fcntl is None or key in _held:
        yield
        return
    descriptor = _acquire(directory)
    if descriptor is None:
        yield
        return
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        # Removed while it is held, so that nobody can hold the name that goes.
        with suppress(OSError):
            (directory / _NAME).unlink()
        os.close(descriptor)


def _acquire(directory: Path) -> int | None:
    path = directory / _NAME
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"{directory} cannot be written ({error.strerror}): choose another directory "
                "with --out"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
            os.close(descriptor)
            raise UserError(
                f"{directory} is in use by {holder}: wait for it, or choose another directory "
                "with --out"
            ) from error
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            return None
        # The last holder may have removed the name between the two calls.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return descriptor
        os.close(descriptor)
