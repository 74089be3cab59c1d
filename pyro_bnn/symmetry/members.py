"""The quotient of a collection: blocks of members in, a collection of canonical members out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import xarray as xr

from pyro_bnn.allocator import return_freed_memory
from pyro_bnn.symmetry.divide import PRIOR_DRAWS, Work, function_error, seeing
from pyro_bnn.symmetry.identities_of_trace import identities_dataset
from pyro_bnn.symmetry.labelled import BLOCK_BYTES, tensors
from pyro_bnn.symmetry.quotient import Quotient
from pyro_bnn.symmetry.reduce import canonical_of
from pyro_bnn.tasks import Map, one_thread
from pyro_bnn.trace.collection import CANONICAL, Collection, CollectionWriter
from pyro_bnn.trace.netcdf import new_netcdf

__all__ = ["quotient_of_members"]

TASK_MEMBERS = 64
"""Members of one task: a matter of the collection alone, so that results repeat."""

_FIRST_BYTES = 2**23
"""What the first members, from which a quotient learns and on which it is checked, may weigh."""


def quotient_of_members(
    quotient: Quotient,
    collection: Collection,
    *,
    source: Any = None,
    mapped: Map = map,
) -> Collection:
    """Put every member of a collection in canonical form.

    The canonical members are the collection ``canonical`` inside of the directory; the group
    elements, and the identities and the null control if there is a `source`, are groups of its
    ``quotient.nc``. An earlier quotient is replaced. Memory holds one block of members, or one
    member if that is larger, and the group elements.

    Parameters
    ----------
    quotient : Quotient
        What it matches to is learnt from the first members.
    collection : Collection
        Its members that are whole.
    source : LogDensity, optional
        The network: see `Quotient.apply`.
    mapped : callable
        ``mapped(function, tasks)`` yields the results in order, as `map` does; that of a
        `pyro_bnn.infer.distributed.Scheduler` computes them on a cluster. The result is the same.

    Returns
    -------
    Collection
        The canonical members.

    Raises
    ------
    UserError
        If the sites are not those of the network, or canonical members compute other functions.
    """
    group = quotient.group
    quotient = seeing(quotient, source).again()
    few = _members_as_draws(collection, _FIRST_BYTES)
    work = Work(quotient, few, None)
    if source is not None:
        work.source, work.error = source, function_error(quotient.again(), few, source)
    if quotient.permutation not in (None, "sort"):
        # What draws are matched to is settled here, whoever reduces which block.
        with one_thread():
            quotient.reduce(tensors(few.compute(), group))
    shutil.rmtree(collection.directory / CANONICAL, ignore_errors=True)
    side = collection.directory / "quotient.nc"
    side.unlink(missing_ok=True)
    names = collection.names
    tasks = [
        collection.select(names[start : start + TASK_MEMBERS])
        for start in range(0, len(names), TASK_MEMBERS)
    ]
    pieces = []
    for piece in mapped(_Reduce(quotient), tasks):
        pieces.append(piece)
        work.tally.add(*canonical_of(quotient, piece))
    symmetry = xr.concat(pieces, "chain")
    symmetry = symmetry.assign_coords(chain=range(len(names)), member=("chain", names))
    with new_netcdf(side) as out:
        for block in work.prior():
            out.append("canonical_prior", block, min(PRIOR_DRAWS, few.sizes["draw"]))
        out.put("symmetry", symmetry)
        out.set_attrs(work.attributes(), "symmetry")
        if source is not None:
            found = identities_dataset(_members_as_draws(collection), source, group)
            if found.sizes["statement"]:
                out.put("identities", found)
    return Collection.open(collection.directory / CANONICAL, verify="size")


@dataclass(frozen=True)
class _Reduce:
    """Reduces members block by block and appends the results; returns the group elements."""

    quotient: Quotient

    def __call__(self, members: Collection) -> xr.Dataset:
        return_freed_memory()
        records = {record.name: record for record in members.records}
        sites = members.dataset(None).data_vars
        dims = {str(site): [str(dim) for dim in values.dims[2:]] for site, values in sites.items()}
        out = CollectionWriter(members.directory / CANONICAL, dims=dims)
        pieces = []
        for names in members.blocks(BLOCK_BYTES):
            posterior = members.select(names).dataset(None)
            for canonical, symmetry in Work(self.quotient, posterior, None).blocks():
                pieces.append(symmetry)
                for row, name in enumerate(names):
                    record = records[name]
                    out.append(
                        {str(s): v[row, 0].to_numpy() for s, v in canonical.data_vars.items()},
                        name=name,
                        seed=record.seed,
                        recipe=record.recipe,
                        metrics=record.metrics,
                    )
        return xr.concat(pieces, "chain")


def _members_as_draws(collection: Collection, most_bytes: int | None = None) -> xr.Dataset:
    """Return members as the draws of one chain, which is how blocks are cut; lazily."""
    names = collection.names
    if most_bytes is not None:
        names = names[: max(1, most_bytes // max(1, collection.member_bytes))]
    data = collection.select(names).dataset(None).drop_vars(["member", "chain", "draw"])
    return data.rename(chain="draw", draw="chain")
