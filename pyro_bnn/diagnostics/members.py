"""Stacking weights of the chains or members of one run (Yao, Vehtari and Gelman 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from pyro_bnn.diagnostics.blocks import draw_slices
from pyro_bnn.diagnostics.stacking import stacking_weights

MAX_MEMBERS = 128

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MemberStacking:
    """The mixture of chains that predicts the test split best.

    Attributes
    ----------
    weights
        Of each chain, shape ``(chain,)``; they sum to one.
    nll_equal
        Negative log predictive density of the plain average, nats an input.
    nll_stacked
        That of the mixture on inputs that its weights were not fitted to (two halves in turn).
    """

    weights: Array
    nll_equal: float
    nll_stacked: float

    @property
    def effective(self) -> float:
        """Effective number of chains: the exponential of the entropy of the weights."""
        used = self.weights[self.weights > 0]
        return float(np.exp(-np.sum(used * np.log(used))))


def member_stacking(trace: xr.DataTree) -> MemberStacking | None:
    """Weigh the chains by how well their mixture predicts the test split.

    Parameters
    ----------
    trace
        A trace; its group ``predictions`` holds ``log_predictive`` over ``(chain, draw, test)``.

    Returns
    -------
    MemberStacking or None
        None without such predictions, for one chain or more than 128, fewer than two inputs, or a
        density that is NaN.
    """
    if "predictions" not in trace.children or "log_predictive" not in trace["predictions"]:
        return None
    array = trace["predictions"]["log_predictive"].transpose("chain", "draw", ...)
    chains, draws, tests = array.shape[0], array.shape[1], array.shape[-1]
    if not 1 < chains <= MAX_MEMBERS or array.ndim != 3 or tests < 2 or draws == 0:
        return None
    sums = np.full((chains, tests), -np.inf)
    for some in draw_slices(array):
        block = array.isel(draw=some).to_numpy().astype(np.float64)
        if np.isnan(block).any():
            return None
        sums = np.logaddexp(sums, np.logaddexp.reduce(block, axis=1))
    each = sums - np.log(draws)
    held_out = np.empty(tests)
    for fold in (0, 1):
        other = np.arange(tests) % 2 == fold
        held_out[other] = _mixed(each[:, other], stacking_weights(each[:, ~other]))
    equal = _mixed(each, np.full(chains, 1 / chains))
    return MemberStacking(stacking_weights(each), float(-equal.mean()), float(-held_out.mean()))


def _mixed(log_predictive: Array, weights: Array) -> Array:
    """Log density of a mixture, ``(test,)``, of components ``(chain, test)``."""
    used = weights > 0
    mixed: Array = logsumexp(log_predictive[used], axis=0, b=weights[used, None])
    return mixed
