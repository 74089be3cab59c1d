"""Leave-one-out cross-validation by Pareto-smoothed importance sampling, as ArviZ computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray
from scipy.special import logsumexp

from pyro_bnn.diagnostics.draws import effective_draws
from pyro_bnn.diagnostics.importance import FEWEST_DRAWS, largest_reliable
from pyro_bnn.diagnostics.smoothing import smoothed_where_there_is_a_tail

_BLOCK_BYTES = 2**25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Loo:
    """PSIS-LOO of a trace (Vehtari, Gelman and Gabry 2017).

    Attributes
    ----------
    pointwise
        Log predictive density of each training row under the posterior of the others, shape
        ``(row,)``.
    lost
        How much lower it is than with the row itself, shape ``(row,)``.
    pareto_k
        Shape of the tail of the importance weights, shape ``(row,)``; minus infinity where all
        draws give the row the same density.
    total
        Training rows; where it exceeds the number of rows above, those were drawn at random.
    limit
        The estimate of a row is reliable if its Pareto k is at most this, which depends on the
        number of draws (Vehtari et al. 2024).
    """

    pointwise: Array
    lost: Array
    pareto_k: Array
    total: int
    limit: float

    @property
    def rows(self) -> int:
        """Training rows behind the estimate."""
        return len(self.pointwise)

    @property
    def elpd(self) -> float:
        """Expected log predictive density, summed over the rows."""
        return float(self.pointwise.sum())

    @property
    def error(self) -> float:
        """Standard error of `elpd`."""
        return float(np.sqrt(self.rows) * self.pointwise.std())

    @property
    def parameters(self) -> float:
        """Effective number of parameters, of the rows."""
        return float(self.lost.sum())

    @property
    def unreliable(self) -> int:
        """Rows whose estimate leans on a few draws."""
        return int(np.sum(self.pareto_k > self.limit))


def loo(trace: xr.DataTree) -> Loo | None:
    """Estimate how well the posterior predicts a training row that it has not seen.

    Parameters
    ----------
    trace
        A trace; its group ``log_likelihood`` holds one variable over ``(chain, draw, row)``. Its
        attribute ``rows`` is the number of training rows, if these are a sample of them.

    Returns
    -------
    Loo or None
        None if the trace has no such group, fewer than 25 draws, or a value that is not finite.
        Rows are loaded in blocks of 32 MiB.
    """
    if "log_likelihood" not in trace.children:
        return None
    group = trace["log_likelihood"].to_dataset()
    names = [str(name) for name in group.data_vars]
    draws = group.sizes["chain"] * group.sizes["draw"]
    if len(names) != 1 or draws < FEWEST_DRAWS:
        return None
    values = group[names[0]].transpose("chain", "draw", ...)
    if values.ndim < 3:
        return None
    values = values.stack(row_=values.dims[2:], create_index=False)
    effective = min(1.0, effective_draws(group) / draws)
    step = max(1, _BLOCK_BYTES // (8 * draws))
    parts = []
    for start in range(0, values.sizes["row_"], step):
        block = values.isel(row_=slice(start, start + step)).to_numpy().astype(np.float64)
        if not np.isfinite(block).all():
            return None
        parts.append(_left_out(block, effective))
    pointwise, pareto_k, lost = np.concatenate(parts, axis=1)
    total = int(group.attrs.get("rows", len(pointwise)))
    return Loo(pointwise, lost, pareto_k, total, largest_reliable(draws))


def _left_out(values: Array, effective: float) -> Array:
    """Return elpd, Pareto k and lost density of rows, ``(3, row)``, from ``(chain, draw, row)``."""
    moving = np.ptp(values, axis=(0, 1)) > 0
    result = np.stack([values[0, 0], np.full(moving.shape, -np.inf), np.zeros(moving.shape)])
    if not moving.any():
        return result

    def smoothed(rows: Array) -> Array:
        found = array_stats.loo(  # type: ignore[no-untyped-call]
            rows, chain_axis=0, draw_axis=1, r_eff=effective
        )
        return np.stack(found)

    def plain(row: Array) -> Array:
        size = np.log(row.size)
        elpd = size - logsumexp(-row)
        return np.array([[elpd], [np.inf], [logsumexp(row) - size - elpd]])

    result[:, moving] = smoothed_where_there_is_a_tail(values[:, :, moving], smoothed, plain)
    return result
