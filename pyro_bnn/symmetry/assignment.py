"""Linear assignment: the (signed) permutation matrices of largest score."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

LAPX_FROM = 32
"""Size from which lapx is used, if it is there. It is never slower; below, the gain is
microseconds (`benchmarks/symmetry_alignment.py --solvers`)."""


def assignment(score: Tensor, signed: bool = False) -> Tensor:
    """Return the (signed) permutation matrices of largest score.

    Parameters
    ----------
    score : Tensor
        ``(batch, size, size)``.
    signed : bool
        Whether entries may be -1: then the assignment is that of the absolute scores.

    Returns
    -------
    Tensor
        ``(batch, size, size)``.
    """
    return matrix(best_columns(score.abs() if signed else score), score if signed else None)


def best_columns(score: Tensor) -> Tensor:
    """Return the column that each row is assigned, ``(batch, size)`` of int64."""
    table = np.ascontiguousarray(score.detach().cpu().numpy())
    if table.shape[-1] < 2 or not len(table):
        return torch.zeros(score.shape[:2], dtype=torch.int64, device=score.device)
    columns = _solver(table.shape[-1])(table)
    return torch.from_numpy(columns.astype(np.int64)).to(score.device)


def matrix(columns: Tensor, signs: Tensor | None = None) -> Tensor:
    """Return assignments as matrices, with the signs of some scores at the chosen places."""
    index = columns[..., None]
    result = torch.zeros(*columns.shape, columns.shape[-1], dtype=torch.float64).to(columns.device)
    if signs is None:
        return result.scatter_(-1, index, 1.0)
    chosen = signs.gather(-1, index)
    return result.scatter_(-1, index, torch.where(chosen < 0, -1.0, 1.0).double())


def _solver(size: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    fast = _lapx()
    return fast if fast is not None and size >= LAPX_FROM else by_scipy


def by_scipy(table: NDArray[Any]) -> NDArray[Any]:
    """Solve assignments ``(batch, size, size)`` one after the other."""
    return np.stack([linear_sum_assignment(one, maximize=True)[1] for one in table])


@cache
def _lapx() -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """Return the batched solver of lapx, None where it is not installed."""
    try:
        solve = importlib.import_module("lap").lapjvr_batch
    except (ImportError, AttributeError):
        return None

    def by_lapx(table: NDArray[Any]) -> NDArray[Any]:
        threads = torch.get_num_threads()
        _, columns = solve(-table, return_cost=False, n_threads=threads)
        return np.stack(columns)

    return by_lapx
