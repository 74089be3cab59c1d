"""How much memory a run needs, told before and after it turns out to be too much."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyro_bnn.errors import UserError
from pyro_bnn.halving import ran_out_of_memory
from pyro_bnn.logdensity import LogDensity

__all__ = ["refuse_too_many_chains", "telling_memory"]

_VECTORS = 12
"""Vectors of a chain's dimension that a step holds at least: states, momenta, gradients."""


def least_bytes(density: LogDensity, num_chains: int, draws: int) -> int:
    """Return what states and `draws` draws in memory take; activations come on top."""
    itemsize = torch.empty(0, dtype=density.dtype).element_size()
    return num_chains * density.dim * itemsize * (_VECTORS + draws)


def refuse_too_many_chains(density: LogDensity, num_chains: int, draws: int) -> None:
    """Refuse chains that cannot fit into the machine.

    Raises
    ------
    UserError
        If states and draws alone need more memory than there is; says how much.
    """
    needed, there = least_bytes(density, num_chains, draws), _total_bytes(density.device)
    if needed > there:
        raise UserError(
            f"MCMC: {num_chains} chains of {density.dim} dimensions need {_told(needed)} at least, "
            f"{density.device} has {_told(there)}: lower num_chains, or stream to a run_dir in "
            "segments of fewer draws"
        )


@contextmanager
def telling_memory(density: LogDensity, num_chains: int, draws: int) -> Iterator[None]:
    """Turn an allocator's failure into a sentence.

    Raises
    ------
    UserError
        If memory runs out inside of the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        single = f", {asked[1]} of them in one tensor" if asked else ""
        needed = least_bytes(density, num_chains, draws)
        raise UserError(
            f"MCMC: {num_chains} chains do not fit into the memory of {density.device}: they need "
            f"{_told(needed)} and the activations of the model on top{single}; lower num_chains "
            "or the rows of a batch"
        ) from error


def _total_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _told(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
