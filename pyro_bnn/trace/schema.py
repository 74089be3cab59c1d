"""Draws of a model's sites as a dataset in ArviZ's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_bnn.errors import UserError

SAMPLE_DIMS = ("chain", "draw")


def site_dataset(
    draws: Mapping[str, Tensor | ArrayLike],
    dims: Mapping[str, Sequence[str]] | None = None,
    draw_start: int = 0,
) -> xr.Dataset:
    """Name the axes of the draws of every site.

    Two sites that give one of their axes the same name share that dimension, so that an indexing
    by the name (``isel(h0=permutation)``) reaches both.

    Parameters
    ----------
    draws
        Site name to array or tensor (of any device) of shape ``(chain, draw, *shape)``.
    dims
        Site name to the names of the axes of ``shape``. A site that is left out gets ArviZ's
        ``<site>_dim_0``, ``<site>_dim_1``, ...
    draw_start
        The first value of the ``draw`` coordinate.

    Returns
    -------
    xr.Dataset
        One variable a site, with integer coordinates for ``chain`` and ``draw``. The site axes
        have no coordinates: the order of hidden units means nothing.

    Raises
    ------
    UserError
        If a site lacks the two sample axes, or the names do not fit the shapes.

    Examples
    --------
    >>> data = site_dataset(
    ...     {"w1": np.zeros((2, 5, 3, 4)), "w2": np.zeros((2, 5, 4))},
    ...     dims={"w1": ("x0", "h0"), "w2": ("h0",)},
    ... )
    >>> dict(data.isel(h0=[3, 2, 1, 0]).sizes)
    {'chain': 2, 'draw': 5, 'x0': 3, 'h0': 4}
    """
    names = dims or {}
    sizes: dict[str, tuple[int, str]] = {}
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
    for site, values in draws.items():
        array = to_numpy(values)
        if array.ndim < len(SAMPLE_DIMS):
            raise UserError(
                f"Site '{site}' has shape {array.shape}; its draws need the leading axes "
                "(chain, draw): add the one that is missing."
            )
        inner = names.get(site)
        if inner is None:
            inner = [f"{site}_dim_{axis}" for axis in range(array.ndim - len(SAMPLE_DIMS))]
        axes = (*SAMPLE_DIMS, *inner)
        if len(axes) != array.ndim:
            raise UserError(
                f"Site '{site}' has the axes {array.shape[2:]} but the dimension names "
                f"{tuple(inner)}: give one name an axis."
            )
        for dim, size in zip(axes, array.shape, strict=True):
            known, first = sizes.setdefault(dim, (size, site))
            if known != size:
                raise UserError(
                    f"Dimension '{dim}' has size {known} in site '{first}' but {size} in site "
                    f"'{site}': give the two axes different names."
                )
        variables[site] = (axes, array)
    coords = {}
    if variables:
        coords["chain"] = np.arange(sizes["chain"][0])
        coords["draw"] = np.arange(draw_start, draw_start + sizes["draw"][0])
    return xr.Dataset(variables, coords=coords)


def encode_attrs(attrs: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Turn attributes into strings and numbers, the only kinds that every backend stores.

    Strings and numbers stay, booleans become 0 or 1, and everything else becomes JSON (as do
    integers that 64 bits do not hold, such as the order of a permutation group).

    Parameters
    ----------
    attrs
        Attribute name to value.

    Returns
    -------
    dict
        The same names with values that NetCDF and zarr store alike.

    Examples
    --------
    >>> encode_attrs({"model": "mlp", "compiled": True, "shape": (2, 3)})
    {'model': 'mlp', 'compiled': 1, 'shape': '[2, 3]'}
    """
    return {name: _encode(value) for name, value in attrs.items()}


def to_numpy(values: Tensor | ArrayLike) -> NDArray[Any]:
    """Bring draws to the host in a type that NetCDF knows (half precision widens exactly)."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            values = values.float()
        values = values.numpy()
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _encode(value: Any) -> str | int | float:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, default=_jsonable)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"an attribute of type {type(value).__name__} cannot be written as JSON")
