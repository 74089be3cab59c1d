"""One block of draws in canonical form: the task of a thread, or of a worker elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.halving import Halving
from pyro_bnn.symmetry.labelled import (
    SAMPLE_DIMS,
    element_dataset,
    mass,
    read_element,
    tensors,
    with_sites,
)
from pyro_bnn.symmetry.quotient import Canonical, Quotient
from pyro_bnn.tasks import one_thread

__all__ = ["Reduce", "canonical_of", "reduce_block"]


@dataclass(frozen=True)
class Reduce:
    """Maps a block to its canonical draws and what was done to them, as a task.

    Attributes
    ----------
    quotient : Quotient
        That knows what it matches to.
    """

    quotient: Quotient

    def __call__(self, block: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """Reduce draws ``(chain, draw, *shape)``, read here if they are lazy."""
        canonical, symmetry, _ = reduce_block(self.quotient, block)
        return canonical, symmetry


def reduce_block(
    quotient: Quotient, block: xr.Dataset, last: Mapping[str, Tensor] | None = None
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Tensor] | None]:
    """Reduce a block; where draws follow the ones before them, `last` is what these left.

    Returns
    -------
    canonical : xarray.Dataset
    symmetry : xarray.Dataset
        The element of each draw and the report on it.
    last : dict of str to Tensor, optional
        For the next block.
    """
    found: list[tuple[xr.Dataset, xr.Dataset]] = []

    def reduced(span: slice) -> tuple[xr.Dataset, xr.Dataset, dict[str, Tensor] | None]:
        return _reduced(quotient, block.isel(draw=span).compute(), last)

    draws = block.sizes["draw"]
    for canonical, symmetry, after in Halving(draws, "quotient", "draws").run(reduced, draws):
        found.append((canonical, symmetry))
        last = after
    if len(found) == 1:
        return *found[0], after
    parts = (xr.concat(part, "draw", combine_attrs="override") for part in zip(*found, strict=True))
    canonical, symmetry = parts
    return canonical, symmetry, after


def _reduced(
    quotient: Quotient, inside: xr.Dataset, last: Mapping[str, Tensor] | None
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Tensor] | None]:
    """Reduce draws that are in memory, after those that ended with `last`."""
    chains = inside.sizes["chain"]
    draws = tensors(inside, quotient.group)
    with one_thread():
        result = quotient.reduce(draws, chains, last)
        before = mass(draws)
        after = mass({site: result.params[site] for site in quotient.group.shapes})
    canonical = with_sites(inside, result.params)
    canonical.attrs = dict(inside.attrs)
    symmetry = element_dataset(result.element, inside)
    for name, values in (
        ("not_finite", result.nan),
        ("imbalance", result.residual),
        ("degenerate_units", result.degenerate),
        ("idle_units", result.idle),
        ("margin", result.margin),
        ("log_abs_det", result.element.log_abs_det),
        ("mass_before", before),
        ("mass_after", after),
    ):
        symmetry[name] = (SAMPLE_DIMS, values.reshape(chains, -1).double().numpy())
    return canonical, symmetry, result.last


def canonical_of(quotient: Quotient, symmetry: xr.Dataset) -> tuple[Canonical, Tensor, Tensor]:
    """Read the report on each draw back, and its mass before and after, without the weights."""

    def flat(name: str) -> Tensor:
        return torch.from_numpy(symmetry[name].to_numpy()).flatten()

    canonical = Canonical(
        params={},
        element=read_element(quotient.group, symmetry),
        nan=flat("not_finite").bool(),
        residual=flat("imbalance"),
        degenerate=flat("degenerate_units"),
        margin=flat("margin"),
        idle=flat("idle_units"),
    )
    return canonical, flat("mass_before"), flat("mass_after")
