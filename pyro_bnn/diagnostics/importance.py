"""How well a guide covers the posterior, by the Pareto k of its importance weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray
from scipy.special import logsumexp

from pyro_bnn.diagnostics.smoothing import smoothed_where_there_is_a_tail

FEWEST_DRAWS = (
    25  # fewer have a tail of less than five, to which no Pareto distribution can be fitted
)
_RELIABLE = 0.7

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Importance weights from a guide to the posterior, member by member (Yao et al. 2018).

    Attributes
    ----------
    pareto_k
        Shape of the tail of each member's weights, shape ``(chain,)``; NaN for a member that is
        not finite, infinite for one whose largest weights are all the same, which have no tail.
    effective
        Effective share of each member's draws, shape ``(chain,)``: the inverse of the sum of its
        squared smoothed weights, over the number of draws.
    draws
        Draws of a member.
    limit
        The weights are reliable if their k is at most this.
    """

    pareto_k: Array
    effective: Array
    draws: int
    limit: float


def largest_reliable(draws: int) -> float:
    """Return the largest Pareto k at which so many draws can be trusted (Vehtari et al. 2024).

    Parameters
    ----------
    draws
        Draws behind the weights.

    Examples
    --------
    >>> largest_reliable(100), largest_reliable(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(draws, 2)), _RELIABLE)


def importance(trace: xr.DataTree) -> Importance | None:
    """Compute the Pareto k of each member of a guide.

    Parameters
    ----------
    trace
        A trace; its group ``sample_stats`` holds ``lp``, the log posterior density up to a
        constant, and ``log_q``, the guide's log density, both in unconstrained space.

    Returns
    -------
    Importance or None
        None if the trace has no such densities, or fewer than 25 draws a member.
    """
    if "sample_stats" not in trace.children:
        return None
    stats = trace["sample_stats"].to_dataset()
    if not {"lp", "log_q"} <= set(stats.data_vars) or stats.sizes["draw"] < FEWEST_DRAWS:
        return None
    lp, log_q = (
        stats[name].transpose("chain", "draw").to_numpy().astype(np.float64)
        for name in ("lp", "log_q")
    )
    ratios = lp - log_q
    draws = ratios.shape[1]
    k, effective = np.full((2, len(ratios)), np.nan)
    fine = np.isfinite(ratios).all(axis=1) & (np.ptp(ratios, axis=1) > 0)
    if fine.any():
        found = smoothed_where_there_is_a_tail(ratios[fine].T, _smoothed, _plain)
        effective[fine], k[fine] = found[0] / draws, found[1]
    return Importance(k, effective, draws, largest_reliable(draws))


def _smoothed(ratios: Array) -> Array:
    """Effective draws and Pareto k ``(2, member)`` of log importance ratios ``(draw, member)``."""
    # ArviZ takes log likelihoods, whose negatives are the log weights.
    log_weights, k = array_stats.psislw(-ratios.T)  # type: ignore[no-untyped-call]
    return np.stack([np.exp(-logsumexp(2 * log_weights, axis=1)), k])


def _plain(ratios: Array) -> Array:
    """Do the same without smoothing, for one member."""
    log_weights = ratios - logsumexp(ratios)
    return np.array([[np.exp(-logsumexp(2 * log_weights))], [np.inf]])
