"""Chains that died on the way: still in the trace of their run, left out of all that judges it."""

from __future__ import annotations

import json

import xarray as xr

from pyro_bnn.trace.attributes import whole_numbers

__all__ = ["dead_chains", "without_dead_chains"]


def dead_chains(trace: xr.DataTree) -> list[int]:
    """Return the positions of the chains that the root attribute ``dead_chains`` names.

    Parameters
    ----------
    trace
        A trace; without the attribute no chain is dead.

    Raises
    ------
    UserError
        If the attribute is not a list of whole numbers in JSON.
    """
    return whole_numbers(trace, "dead_chains")


def without_dead_chains(trace: xr.DataTree) -> xr.DataTree:
    """Return a trace without its dead chains, which it still names.

    Parameters
    ----------
    trace
        A trace with all its chains.

    Raises
    ------
    UserError
        As `dead_chains`.
    """
    dead = dead_chains(trace)
    if not dead:
        return trace

    def keep(group: xr.Dataset) -> xr.Dataset:
        if "chain" not in group.dims:
            return group
        return group.isel(chain=[c for c in range(group.sizes["chain"]) if c not in dead])

    alive = xr.DataTree.from_dict(
        {node.path: keep(node.to_dataset(inherit=False)) for node in trace.subtree}
    )
    alive.attrs = dict(trace.attrs)
    if "members" in alive.attrs:
        members = whole_numbers(trace, "members")
        kept = [member for chain, member in enumerate(members) if chain not in dead]
        alive.attrs["members"] = json.dumps(kept)
    return alive
