"""Draws and group elements as labelled arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import translation
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.required_sites import require_sites

BLOCK_BYTES = 4 * 2**20
SAMPLE_DIMS = ("chain", "draw")


def restore(trace: xr.DataTree) -> xr.Dataset:
    """Return the original draws from the canonical ones and the stored elements.

    A trace does not store what was taken off idle units: the draws that had some are read from
    the group ``posterior``.

    Raises
    ------
    UserError
        If the trace holds no quotient, or some draws had idle units and it holds no posterior.
    """
    for name in ("canonical_posterior", "symmetry"):
        if name not in trace.children:
            raise UserError(f"the trace has no group {name!r}: apply a quotient to it first")
    canonical = trace["canonical_posterior"].to_dataset()
    symmetry = trace["symmetry"].to_dataset()
    group = SymmetryGroup.from_json(symmetry.attrs["group"])
    pieces = []
    for block in slices(canonical):
        inside = canonical.isel(draw=block)
        element = read_element(group, symmetry.isel(draw=block))
        restored = with_sites(inside, element.inverse().apply(tensors(inside, group)))
        idle = symmetry["idle_units"].isel(draw=block) > 0
        if bool(idle.any()):
            if "posterior" not in trace.children:
                raise UserError(
                    f"{int((symmetry['idle_units'] > 0).sum())} draws had units that nothing goes "
                    "in to or out of; the quotient set their weights to zero, and a trace keeps "
                    "them only in its group 'posterior', which is missing: restore from the "
                    "whole trace, or from the element that Quotient.canonicalize returns."
                )
            before = posterior_of(trace, group).isel(draw=block)
            restored = restored.where(~idle, before[list(restored.data_vars)])
        pieces.append(restored)
    return xr.concat(pieces, "draw") if pieces else canonical


def posterior_of(trace: xr.DataTree, group: SymmetryGroup) -> xr.Dataset:
    """Return the posterior of a trace, checked against the sites of a network."""
    if "posterior" not in trace.children:
        raise UserError("the trace has no group 'posterior': was the run finished?")
    posterior = trace["posterior"].to_dataset()
    shapes = {
        str(name): tuple(n for d, n in array.sizes.items() if d not in SAMPLE_DIMS)
        for name, array in posterior.data_vars.items()
    }
    require_sites(group, shapes)
    return posterior


def tensors(data: xr.Dataset, group: SymmetryGroup) -> dict[str, Tensor]:
    """Return the sites of a group as tensors ``(chain * draw, *shape)``."""
    result = {}
    for site, shape in group.shapes.items():
        array = data[site].transpose(*SAMPLE_DIMS, ...).values
        result[site] = torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *shape)
    return result


def element_dataset(element: GroupElement, like: xr.Dataset) -> xr.Dataset:
    """Store group elements as variables over ``chain`` and ``draw``.

    ``h0 (chain, draw, h0_unit)`` is the permutation of the space ``h0``; families of scales and
    signs, and translations, are named as the group names them, with underscores.
    """
    chains, draws = like.sizes["chain"], like.sizes["draw"]

    def shaped(values: Tensor) -> NDArray[Any]:
        whole = values.expand(chains * draws, *values.shape[1:]).cpu()
        return whole.reshape(chains, draws, *values.shape[1:]).numpy()

    group = element.group
    variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
    for name, space in group.permutable.items():
        stored = element.permutations.get(name)
        if stored is None:
            stored = torch.arange(space.size).expand(
                1, *(n for n in [space.over_size] if space.over), -1
            )
        dims: tuple[str, ...] = (
            (f"{name}_unit",) if not space.over else (f"{space.over}_unit", f"{name}_unit")
        )
        variables[name] = ((*SAMPLE_DIMS, *dims), shaped(stored).astype(np.int32))
    for name, family in group.families.items():
        key = variable_name(name)
        dims = (f"{family.space}_unit",) if family.space else ()
        space_size = group.spaces[family.space].size if family.space else 1
        if family.size != space_size:
            dims = (f"{key}_parameter",)
        if family.kind == "scale":
            values = element.log_scales.get(name, torch.zeros(1, family.size, dtype=torch.float64))
            array = shaped(values).astype(np.float64)
        else:
            array = shaped(element.signs.get(name, torch.ones(1, family.size))).astype(np.float32)
        variables[key] = ((*SAMPLE_DIMS, *dims), array if dims else array[..., 0])
    for name, values in translation.parameters(group, element.added).items():
        key = variable_name(name)
        variables[key] = ((*SAMPLE_DIMS, f"{key}_parameter"), shaped(values).astype(np.float64))
    coords = {dim: like.coords[dim] for dim in SAMPLE_DIMS if dim in like.coords}
    return xr.Dataset(variables, coords=coords)


def read_element(group: SymmetryGroup, data: xr.Dataset) -> GroupElement:
    """Read group elements written by `element_dataset`."""
    batch = data.sizes["chain"] * data.sizes["draw"]

    def flat(name: str) -> Tensor:
        array = data[name].transpose(*SAMPLE_DIMS, ...).values
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(batch, *array.shape[2:])

    permutations = {name: flat(name).long() for name in group.permutable}
    families = {n: flat(variable_name(n)).reshape(batch, -1) for n in group.families}
    scales = {n: families[n].double() for n in group.kind("scale")}
    signs = {n: families[n].long() for n in group.kind("sign")}
    added = translation.added(group, {n: flat(variable_name(n)) for n in group.translations})
    return GroupElement(group, permutations, scales, signs, batch, added)


def variable_name(family: str) -> str:
    """Return the name of a family or a translation as a variable of a trace."""
    kept = "".join(c if c.isalnum() else "_" for c in family)
    return "_".join(part for part in kept.split("_") if part)


def mass(params: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of squared weights of each draw, ``(batch,)`` in float64."""
    return torch.stack(
        [value.reshape(value.shape[0], -1).double().square().sum(-1) for value in params.values()]
    ).sum(0)


def slices(data: xr.Dataset) -> Iterator[slice]:
    """Cut the draws into blocks of bounded size."""
    draws, step = data.sizes["draw"], block_draws(data)
    for start in range(0, draws, step):
        yield slice(start, min(start + step, draws))


def block_draws(data: xr.Dataset) -> int:
    """Return how many draws of all chains make a block of bounded size."""
    weight = sum(array.nbytes for array in data.data_vars.values())
    each = max(weight // max(data.sizes["draw"], 1), 1)
    return max(BLOCK_BYTES // each, 1)


def with_sites(block: xr.Dataset, params: Mapping[str, Tensor]) -> xr.Dataset:
    """Return a block of draws with the values of some sites replaced."""
    replaced: dict[str, xr.DataArray] = {}
    for name, array in block.data_vars.items():
        if str(name) in params:
            inner = [dim for dim in array.dims if dim not in SAMPLE_DIMS]
            whole = array.transpose(*SAMPLE_DIMS, *inner)
            values = params[str(name)].reshape(whole.shape).numpy()
            replaced[str(name)] = whole.copy(data=values)
    return block.assign(replaced)
