"""What a sampler needs to go on, in one safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.trace.atomic import replacing

_DIGEST = "sha256"


def save_state(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Save a state, whole or not at all.

    Parameters
    ----------
    path
        The file; the state that was there stays until the new one is on the disk.
    tensors
        Name to tensor, of any device.
    metadata
        Name to string.
    """
    # Copies: safetensors refuses tensors that share memory.
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(Path(path)) as temporary:
        save_file(own, temporary, {**metadata, _DIGEST: _digest(own, metadata)})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load what `save_state` saved.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    tensors : dict
        Name to tensor, on the CPU.
    metadata : dict
        Name to string.

    Raises
    ------
    UserError
        If the file is missing, truncated, damaged or not a state.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"There is no sampler state at {path}: check the directory, or start the run anew "
            "without resuming."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"The sampler state {path} is truncated or not a state ({error}): restore it from a "
            "copy, or start the run anew in another directory; the segments beside it are intact."
        ) from error
    if metadata.pop(_DIGEST, None) != _digest(tensors, metadata):
        raise UserError(
            f"The sampler state {path} is damaged, its checksum does not fit: restore it from a "
            "copy, or start the run anew in another directory; the segments beside it are intact."
        )
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all that a state says."""
    found = hashlib.sha256(repr(sorted(metadata.items())).encode("utf-8"))
    for name, tensor in sorted(tensors.items()):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode("utf-8"))
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
