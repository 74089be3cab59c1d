"""Parts of tensors in a safetensors file, read without reading or mapping the rest of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Header", "Place", "read_header", "read_rows"]

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_LARGEST_HEADER = 100 * 2**20  # as safetensors has it


@dataclass(frozen=True, order=True)
class Place:
    """Where a tensor is in a file: its type there, its shape, and its first byte after the head."""

    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values once they are read: half precision widens to float32."""
        return np.dtype(np.float64 if self.kind == "F64" else np.float32)


@dataclass(frozen=True)
class Header:
    """The head of a safetensors file.

    Attributes
    ----------
    start : int
        The byte at which the values begin.
    size : int
        Bytes of the whole file.
    places : mapping of str to Place
        The floating-point tensors.
    """

    start: int
    size: int
    places: Mapping[str, Place]


def read_header(path: Path) -> Header:
    """Read the head of a safetensors file.

    Raises
    ------
    ValueError
        If the file is not one, or ends before its head does.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LARGEST_HEADER else b""
    if len(text) != length:
        raise ValueError("it is not a safetensors file, or ends within its head")
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        places = {
            name: Place(entry["dtype"], _sizes(entry["shape"]), _sizes(entry["data_offsets"])[0])
            for name, entry in entries.items()
            if entry["dtype"] in _TYPES
        }
        stop = max((_sizes(entry["data_offsets"])[1] for entry in entries.values()), default=0)
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError("it is not a safetensors file") from error
    return Header(8 + length, 8 + length + stop, places)


def _sizes(numbers: Sequence[int]) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers} are not sizes")
    return tuple(numbers)


def read_rows(path: Path, header: Header, name: str, rows: slice) -> NDArray[np.floating]:
    """Read a tensor, or a range of its first axis.

    Parameters
    ----------
    path : Path
        The file.
    header : Header
        Its head.
    name : str
        The tensor.
    rows : slice
        Of its first axis, without a step; a scalar has one row.

    Returns
    -------
    numpy.ndarray
        ``(row, ...)``, float32 or float64; a scalar without axes.
    """
    place = header.places[name]
    stored = np.dtype(_TYPES[place.kind])
    first, stop, _ = rows.indices(place.shape[0] if place.shape else 1)
    inner = math.prod(place.shape[1:])
    count = max(0, stop - first)
    with path.open("rb") as file:
        file.seek(header.start + place.start + first * inner * stored.itemsize)
        values = np.fromfile(file, stored, count * inner)
    if len(values) != count * inner:
        raise OSError(f"{path} has become shorter since it was opened")
    shape = (count, *place.shape[1:]) if place.shape else ()
    if place.kind == "BF16":
        # The upper half of a float32.
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(place.dtype, copy=False).reshape(shape)
