"""Hand large tensors to other processes in files that they map, not as copies in a pipe."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch
from torch import Tensor

__all__ = ["dumps"]

_LEAST_BYTES = 2**20


def dumps(value: object, folder: Path) -> bytes:
    """Pickle a value by cloudpickle, the memory of its large tensors in files beside.

    Processes that unpickle it map the files: they share the pages and copy those that they write
    to. Tensors that share memory, as the views of one data set do, share a file.

    Parameters
    ----------
    value : object
        What to pickle.
    folder : Path
        An empty directory, to be kept until the value has been unpickled.

    Returns
    -------
    bytes
        The pickle, without the memory of tensors of 1 MB and more.
    """
    sink = io.BytesIO()
    _Pickler(sink, folder).dump(value)
    return sink.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes the memory of large tensors to files."""

    def __init__(self, sink: io.BytesIO, folder: Path) -> None:
        super().__init__(sink)
        self._folder = folder
        self._files: dict[int, str] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Name the file, its type and the strides of a tensor, where it is a plain large one."""
        if type(obj) is not Tensor or not _is_plain(obj):
            return super().reducer_override(obj)
        where = self._file(obj.untyped_storage())
        view = tuple(obj.shape), obj.stride(), obj.storage_offset()
        arguments = where, obj.untyped_storage().nbytes(), obj.dtype, *view
        found: tuple[Callable[..., Tensor], tuple[Any, ...]] = _mapped, arguments
        return found

    def _file(self, storage: torch.UntypedStorage) -> str:
        key = storage.data_ptr()
        if key not in self._files:
            path = self._folder / f"{len(self._files)}.bin"
            memory = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
            memory.numpy().tofile(path)
            self._files[key] = str(path)
        return self._files[key]


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg())
        and tensor.untyped_storage().nbytes() >= _LEAST_BYTES
        and tensor.untyped_storage().nbytes() % tensor.element_size() == 0
    )


def _mapped(
    path: str,
    nbytes: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
) -> Tensor:
    """Map a file and view it as the tensor was."""
    size = nbytes // dtype.itemsize
    whole = torch.from_file(path, shared=False, size=size, dtype=dtype)
    return whole.as_strided(shape, stride, offset)
