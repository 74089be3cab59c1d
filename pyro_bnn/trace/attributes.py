"""Attributes that decide what is read of a trace: refused where they cannot be true."""

from __future__ import annotations

import json
import math
from typing import Any

import xarray as xr

from pyro_bnn.errors import UserError

_NUMBERS = ("gradients", "seconds_warmup", "seconds_sampling", "seconds_point_estimate")


def check_attributes(trace: xr.DataTree) -> None:
    """Refuse a trace whose root attributes contradict it; any of them may be missing.

    Parameters
    ----------
    trace
        A trace.

    Raises
    ------
    UserError
        Naming the attribute, what it is, and what it has to be.
    """
    chains = max((node.sizes.get("chain", 0) for node in trace.children.values()), default=0)
    dead = whole_numbers(trace, "dead_chains")
    if any(not 0 <= chain < chains for chain in dead) or len(set(dead)) == chains > 0:
        _refuse(trace, "dead_chains", f"it has to name some of {chains} chains and not all")
    members = whole_numbers(trace, "members")
    if members and len(members) != chains:
        _refuse(trace, "members", f"it has to have one number for each of {chains} chains")
    for name in _NUMBERS:
        try:
            sound = not math.isnan(float(trace.attrs.get(name, 0.0)))
        except (TypeError, ValueError):
            sound = False
        if not sound:
            _refuse(trace, name, "it has to be a number")


def whole_numbers(trace: xr.DataTree, name: str) -> list[int]:
    """Return a list of whole numbers that a root attribute holds in JSON; empty without it."""
    try:
        found: Any = json.loads(str(trace.attrs.get(name, "[]")))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or any(type(value) is not int for value in found):
        _refuse(trace, name, "it has to be a list of whole numbers in JSON")
    numbers: list[int] = found
    return numbers


def _refuse(trace: xr.DataTree, name: str, rule: str) -> None:
    value = " ".join(str(trace.attrs[name]).split())[:60]
    raise UserError(
        f"the trace's attribute '{name}' is '{value}': {rule}; correct it, or remove it"
    )
