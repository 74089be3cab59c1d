"""A checksum at the end of a file, behind what HDF5 reads: damage shows before it is opened.

HDF5 has no checksum on most of its metadata, and a flipped bit there can make the library read on
and on. Bytes behind the end that a file states are allowed, and go when the file is next changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_HEAD = b"\nsha256 "
_LENGTH = len(_HEAD) + 64 + 1
_BLOCK = 2**20


def seal(path: Path) -> None:
    """Append the SHA-256 of a file to it.

    Parameters
    ----------
    path
        The file, which nobody has open.
    """
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_HEAD + digest.encode("ascii") + b"\n")


def is_damaged(path: Path) -> bool:
    """Whether a sealed file is not what was sealed; False of a file without a seal.

    Parameters
    ----------
    path
        The file, which is read once from end to end.
    """
    length = path.stat().st_size - _LENGTH
    if length < 0:
        return False
    with path.open("rb") as file:
        file.seek(length)
        end = file.read(_LENGTH)
    if not end.startswith(_HEAD):
        return False
    return end[len(_HEAD) :] != _digest(path, length).encode("ascii") + b"\n"


def _digest(path: Path, length: int) -> str:
    """SHA-256 of the first `length` bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(_BLOCK, length))):
            found.update(block)
            length -= len(block)
    return found.hexdigest()
