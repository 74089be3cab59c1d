"""Checkpoints of networks trained elsewhere become a trace, and a trace becomes checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.halving import ran_out_of_memory
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.netcdf import BLOCK_BYTES
from pyro_bnn.trace.reader import draw_block
from pyro_bnn.trace.schema import encode_attrs, site_dataset, to_numpy

__all__ = ["Imported", "export_checkpoints", "import_checkpoints", "write_trace"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_NESTED = ("state_dict", "model", "model_state_dict")


class Imported(NamedTuple):
    """What became of a folder of checkpoints.

    Attributes
    ----------
    trace : xr.DataTree
        Group ``posterior``; a checkpoint is a chain of one draw.
    files : list of str
        Names of the files, in the order of the chains.
    skipped : dict of str to str
        Names of the files that were left out, and why.
    """

    trace: xr.DataTree
    files: list[str]
    skipped: dict[str, str]


def import_checkpoints(
    folder: str | Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    prefix: str = "",
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Imported:
    """Read a folder of ``state_dict`` files, one network each.

    A file is read by safetensors, or by ``torch.load(weights_only=True)``, so that no code in it
    runs. Half precision widens to float32. Files that cannot be read, or whose tensors differ
    from what is expected, are left out and reported.

    Parameters
    ----------
    folder : path
        Holds ``*.safetensors``, ``*.pt``, ``*.pth``, ``*.bin`` or ``*.ckpt``; subfolders count.
    shapes : mapping of str to sequence of int, optional
        Name and shape of each tensor to take: the sites of a model. Other tensors are ignored.
        Without it, all floating-point tensors of the first readable file.
    prefix : str
        Removed from the names in the files (``"module."``).
    dims : mapping of str to sequence of str, optional
        Names of the axes of each site, as discovery gives them.

    Raises
    ------
    UserError
        If there is no such file, or none can be taken; names the reason of the first.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for seed in range(3):
    ...         net = torch.nn.Linear(4, 2).half()
    ...         torch.save(net.state_dict(), f"{folder}/{seed}.pt")
    ...     found = import_checkpoints(folder)
    >>> dict(found.trace["posterior"]["weight"].sizes)
    {'chain': 3, 'draw': 1, 'weight_dim_0': 2, 'weight_dim_1': 4}
    """
    folder = Path(folder)
    paths = checkpoint_paths(folder)
    values: dict[str, Tensor] = {}
    files: list[str] = []
    skipped: dict[str, str] = {}
    for name, tensors in read_checkpoints(folder, shapes, prefix, skipped):
        for site, given in tensors.items():
            tensor = torch.from_numpy(to_numpy(given))
            if site not in values:
                values[site] = torch.empty((len(paths), 1, *tensor.shape), dtype=tensor.dtype)
            values[site][len(files), 0] = tensor
        files.append(name)
    posterior = site_dataset({n: v[: len(files)] for n, v in values.items()}, dims)
    trace = xr.DataTree.from_dict({"posterior": posterior})
    facts = {"source": str(folder), "files": files, "skipped": skipped, "method": "checkpoints"}
    trace.attrs.update(encode_attrs(facts))
    return Imported(trace, files, skipped)


def checkpoint_paths(folder: Path) -> list[Path]:
    """List the files of a folder that may hold a network, those of its subfolders too.

    Raises
    ------
    UserError
        If there is none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    if not paths:
        raise UserError(f"{folder} holds no checkpoint: give a folder of {', '.join(_SUFFIXES)}")
    return paths


def read_checkpoints(
    folder: Path,
    shapes: Mapping[str, Sequence[int]] | None,
    prefix: str,
    skipped: dict[str, str],
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Read the files of a folder one at a time; see `import_checkpoints`.

    Parameters
    ----------
    folder, shapes, prefix
        As there.
    skipped : dict of str to str
        Gets the files that are left out, and why.

    Yields
    ------
    name : str
        Of the file, within the folder.
    tensors : dict of str to Tensor
        Those asked for.

    Raises
    ------
    UserError
        At the end, if none could be taken.
    """
    expected = None if shapes is None else {name: tuple(s) for name, s in shapes.items()}
    taken = 0
    for path in checkpoint_paths(folder):
        name = str(path.relative_to(folder))
        try:
            tensors = _read(path, prefix)
        except _Unreadable as error:
            skipped[name] = str(error)
            continue
        if expected is None:
            expected = {n: tuple(t.shape) for n, t in tensors.items() if t.is_floating_point()}
        if difference := _difference(tensors, expected):
            skipped[name] = difference
            continue
        taken += 1
        yield name, {site: tensors[site] for site in expected}
    if not taken:
        first, reason = next(iter(skipped.items()))
        raise UserError(
            f"none of the {len(skipped)} checkpoints in {folder} can be taken; {first}: {reason}"
        )


def export_checkpoints(
    trace: xr.DataTree, folder: str | Path, *, group: str = "posterior"
) -> list[Path]:
    """Write each draw of a trace as a safetensors file of its sites.

    Parameters
    ----------
    trace : xr.DataTree
        A trace.
    folder : path
        Made if it is missing.
    group : str
        ``"posterior"`` or ``"canonical_posterior"``.

    Returns
    -------
    list of Path
        ``chain-0000-draw-0000.safetensors`` and so on, by chain and draw.

    Raises
    ------
    UserError
        If the trace has no such group.
    """
    if group not in trace.children:
        raise UserError(f"the trace has no group {group!r}; it has {', '.join(trace.children)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = trace[group].to_dataset()
    chains, draws = data.sizes["chain"], data.sizes["draw"]
    paths: dict[tuple[int, int], Path] = {}
    # Blocks as they are stored: draw by draw, each would be read once for every draw in it.
    rows = draw_block(data)
    together = max(1, BLOCK_BYTES // max(1, data.nbytes // max(1, chains * draws) * rows))
    for draw in range(0, draws, rows):
        for chain in range(0, chains, together):
            places = slice(chain, chain + together), slice(draw, draw + rows)
            block = data.isel(chain=places[0], draw=places[1]).load()
            for i, j in np.ndindex(block.sizes["chain"], block.sizes["draw"]):
                place = chain + i, draw + j
                paths[place] = _write(folder, block.isel(chain=i, draw=j), *place)
    return [paths[place] for place in sorted(paths)]


def write_trace(trace: xr.DataTree, path: str | Path) -> None:
    """Write a trace that is in memory to a NetCDF file, whole or not at all."""
    with replacing(Path(path), sealed=True) as temporary:
        trace.to_netcdf(temporary)


class _Unreadable(Exception):
    """A file that holds no state dict; the message says why."""


def _read(path: Path, prefix: str) -> dict[str, Tensor]:
    if path.stat().st_size == 0:
        raise _Unreadable("the file is empty")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make its reader raise anything
        if ran_out_of_memory(error):
            raise
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise _Unreadable("the file holds code, not only tensors: it was not run") from error
        raise _Unreadable("the file is truncated or not a checkpoint") from error
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise _Unreadable(f"the file holds a {type(content).__name__}, not a state dict")
    tensors = {str(n): t for n, t in content.items() if isinstance(t, Tensor)}
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in tensors.items()}


def _difference(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Name the first three tensors that are missing or of another shape; empty if none is."""
    found = list(_differences(tensors, expected))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _differences(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    if not expected:
        yield "no floating-point tensor"
    for name, shape in expected.items():
        if name not in tensors:
            yield f"'{name}' is missing"
        elif tuple(tensors[name].shape) != shape:
            yield f"'{name}' has shape {tuple(tensors[name].shape)}, not {shape}"


def _write(folder: Path, point: xr.Dataset, chain: int, draw: int) -> Path:
    path = folder / f"chain-{chain:04d}-draw-{draw:04d}.safetensors"
    tensors = {str(n): torch.from_numpy(v.to_numpy().copy()) for n, v in point.data_vars.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)
    return path
