"""Identities of recorded draws: a group of a trace file, and helpers that need no model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.identities import Identity, compared
from pyro_bnn.symmetry.labelled import SAMPLE_DIMS, posterior_of, tensors
from pyro_bnn.symmetry.prior_score import PriorScore
from pyro_bnn.symmetry.statements import Statement, statements
from pyro_bnn.trace import add_groups, encode_attrs, open_trace
from pyro_bnn.trace.dead_chains import dead_chains

__all__ = ["identities_dataset", "output_shift", "virial", "write_identities"]

BLOCK_BYTES = 32 * 2**20
WHOLE_SPACE = -1
WRITTEN = ("virial", "stein", "output-shift")

Draws = Mapping[str, Any] | xr.Dataset | xr.DataTree
Axes = str | Mapping[str, int]


def write_identities(trace: str | Path, density: LogDensity, group: SymmetryGroup) -> None:
    """Add a group ``identities`` to a trace file.

    The draws are read block by block; chains that died, or have a draw that is not finite, are
    left out and named in the attribute ``chains_left_out``. The group has one dimension
    ``statement``, with the variables ``kind`` (``virial``, ``stein`` or ``output-shift``),
    ``where`` (a hidden space, a family of scales or a site), ``unit`` (-1: the average over the
    space), ``value``, ``expectation``, ``mcse`` and ``z``. A network without continuous symmetry
    gets no such group.

    Parameters
    ----------
    trace : path
        A run directory, or a NetCDF file.
    density : LogDensity
        The posterior that was sampled, at its temperature.
    group : SymmetryGroup
        Discovered on it.

    Raises
    ------
    UserError
        If the trace has no posterior, or its sites are not those of the network.
    """
    path = Path(trace)
    path = path / "trace.nc" if path.is_dir() else path
    with open_trace(path) as opened:
        posterior = posterior_of(opened, group)
        found = identities_dataset(posterior, density, group, without=dead_chains(opened))
    if found.sizes["statement"]:
        add_groups(path, {"identities": found})


def identities_dataset(
    posterior: xr.Dataset,
    density: LogDensity,
    group: SymmetryGroup,
    *,
    without: Collection[int] = (),
) -> xr.Dataset:
    """Return the identities of a posterior as `write_identities` stores them.

    Parameters
    ----------
    posterior : Dataset
    density : LogDensity
    group : SymmetryGroup
    without : collection of int
        Positions of chains to leave out.
    """
    score = PriorScore(density)
    found = [s for s in statements(group, score.normal) if s.kind in WRITTEN]
    tables: list[list[Tensor]] = [[] for _ in found]
    shape = posterior.sizes["chain"], -1
    for block in _blocks(posterior) if found else ():
        draws = tensors(block, group)
        slopes = score(tensors(block, group))
        for statement, parts in zip(found, tables, strict=True):
            parts.append(statement.statistic(draws, slopes).unflatten(0, shape))
    values = [torch.cat(parts, 1) for parts in tables]
    kept = torch.ones(posterior.sizes["chain"], dtype=torch.bool)
    kept[list(without)] = False
    for table in values:
        kept &= table.isfinite().all(-1).all(-1)
    rows: list[tuple[str, str, int, float, float, float, float]] = []
    for statement, table in zip(found, values, strict=True):
        if kept.any():
            flat = table[kept].flatten(0, 1)
            rows += _rows(statement, compared("", statement, flat, int(kept.sum())))
    names = ("kind", "where", "unit", "value", "expectation", "mcse", "z")
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    types = (object, object, np.int32, *(np.float64,) * 4)
    return xr.Dataset(
        {
            name: ("statement", np.array(column, dtype=dtype))
            for name, column, dtype in zip(names, columns, types, strict=True)
        },
        attrs=encode_attrs({"chains_left_out": (~kept).nonzero().flatten().tolist()}),
    )


def virial(
    draws: Draws,
    *,
    incoming: Mapping[str, Any],
    outgoing: Mapping[str, Any],
    unit: Axes,
) -> Identity:
    """Check the virial identity of one layer of positively homogeneous units.

    ``E[|in|^2 / s_in^2 - |out|^2 / s_out^2] = m - n`` for every unit, if its ``m`` incoming
    weights (the bias is one) and ``n`` outgoing ones have normal priors centred at zero.

    Parameters
    ----------
    draws : DataTree, Dataset, or dict of ndarray or Tensor
        A trace, its posterior, or arrays ``(chain, draw, ...)``.
    incoming, outgoing : dict of str to float or array
        Prior standard deviation of each site.
    unit : str or dict of str to int
        The dimension of the units; or, for arrays, their axis in each site, counted without
        chain and draw.

    Returns
    -------
    Identity

    Raises
    ------
    UserError
        If a site or the dimension is missing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draws = {"w": rng.normal(size=(2, 500, 3, 5)), "v": 2 * rng.normal(size=(2, 500, 5))}
    >>> found = virial(draws, incoming={"w": 1.0}, outgoing={"v": 2.0}, unit={"w": 1, "v": 0})
    >>> found.expectation
    array([2., 2., 2., 2., 2.])
    >>> bool(abs(found.pooled_z) < 5)
    True
    """
    total: Tensor | None = None
    count = 0
    for sign, deviations in ((1, incoming), (-1, outgoing)):
        for site, deviation in deviations.items():
            table = _table(draws, site, deviation, unit).square()
            total = sign * table.sum(-1) + (0.0 if total is None else total)
            count += sign * table.shape[-1]
    if total is None:
        raise UserError("virial: name the sites that lead into the units and those that lead out")
    expectation = torch.full((total.shape[-1],), float(count))
    return _identity("virial", "virial", expectation, total)


def output_shift(draws: Draws, site: str, deviation: Any, *, output: Axes) -> Identity:
    """Check that the mean over the outputs of a softmax keeps its prior.

    ``E[C mean^2 / s^2] = 1`` for every input of the last layer, of ``C`` outputs, if its weights
    have normal priors centred at zero of one deviation.

    Parameters
    ----------
    draws : DataTree, Dataset, or dict of ndarray or Tensor
        A trace, its posterior, or arrays ``(chain, draw, ...)``.
    site : str
        The weights or the biases of the last layer.
    deviation : float or array
        Prior standard deviation.
    output : str or dict of str to int
        The dimension of the outputs; or, for arrays, their axis, counted without chain and draw.

    Returns
    -------
    Identity
        Its units are the inputs of the last layer.

    Raises
    ------
    UserError
        If the site or the dimension is missing.
    """
    table = _table(draws, site, deviation, output)
    values = table.shape[2] * table.mean(2).square()
    name = f"output shift of {site}"
    return _identity("output-shift", name, torch.ones(values.shape[-1]), values)


def _identity(kind: str, name: str, expectation: Tensor, values: Tensor) -> Identity:
    statement = Statement(kind, "", expectation, lambda draws, _: draws[""])
    return compared(name, statement, values.flatten(0, 1), len(values))


def _table(draws: Draws, site: str, deviation: Any, axes: Axes) -> Tensor:
    """Return draws over their deviation, ``(chain, draw, size of the axis, rest)``."""
    labelled = draws["posterior"].to_dataset() if isinstance(draws, xr.DataTree) else draws
    if site not in labelled:
        raise UserError(f"the draws have no site {site!r}")
    value = labelled[site]
    if isinstance(value, xr.DataArray):
        value = value.transpose(*SAMPLE_DIMS, ...)
        if not isinstance(axes, str) or axes not in value.dims:
            raise UserError(
                f"site {site!r} has the dimensions {', '.join(map(str, value.dims[2:]))}: name "
                f"one of them, not {axes!r}"
            )
        axis = value.dims.index(axes) - 2
        value = value.to_numpy()
    elif isinstance(axes, str) or site not in axes:
        raise UserError(f"say which axis of site {site!r} is meant: its arrays have no names")
    else:
        axis = axes[site]
    tensor = torch.as_tensor(np.asarray(value)).double()
    tensor = tensor / torch.as_tensor(deviation, dtype=torch.float64)
    return tensor.movedim(axis + 2, 2).reshape(*tensor.shape[:2], tensor.shape[axis + 2], -1)


def _rows(
    statement: Statement, found: Identity
) -> list[tuple[str, str, int, float, float, float, float]]:
    columns = zip(found.value, found.expectation, found.error, found.z, strict=True)
    units = [
        (statement.kind, statement.where, unit, *(float(number) for number in numbers))
        for unit, numbers in enumerate(columns)
    ]
    whole = (statement.kind, statement.where, WHOLE_SPACE, *found.pooled, found.pooled_z)
    return [whole, *units]  # type: ignore[list-item]


def _blocks(posterior: xr.Dataset) -> Any:
    """Cut a posterior into blocks of draws of bounded size."""
    draws = posterior.sizes["draw"]
    each = max(sum(array.nbytes for array in posterior.data_vars.values()) // max(draws, 1), 1)
    step = max(BLOCK_BYTES // each, 1)
    for start in range(0, draws, step):
        yield posterior.isel(draw=slice(start, start + step)).compute()
