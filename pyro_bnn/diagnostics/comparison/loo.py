"""Leave-one-out cross-validation by Pareto-smoothed importance sampling, as ArviZ computes it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics.draws import effective_draws

_RELIABLE = 0.7


@dataclass(frozen=True)
class Loo:
    """PSIS-LOO of a trace (Vehtari, Gelman and Gabry 2017).

    Attributes
    ----------
    elpd, error
        Expected log predictive density, summed over training rows, and its standard error.
    parameters
        Effective number of parameters.
    rows
        Training rows.
    unreliable
        Rows whose Pareto k exceeds 0.7: the estimate leans on a few draws there.
    """

    elpd: float
    error: float
    parameters: float
    rows: int
    unreliable: int


def loo(trace: xr.DataTree) -> Loo | None:
    """Estimate how well the posterior predicts a training row that it has not seen.

    Parameters
    ----------
    trace
        A trace; its group ``log_likelihood`` holds one variable over ``(chain, draw, row)``.

    Returns
    -------
    Loo or None
        None if the trace has no such group, a value in it is not finite, or a row's never changes.
    """
    if "log_likelihood" not in trace.children:
        return None
    from arviz_stats import loo as arviz_loo  # type: ignore[attr-defined]

    group = trace["log_likelihood"].to_dataset()
    names = [str(name) for name in group.data_vars]
    if len(names) != 1 or group.sizes["chain"] * group.sizes["draw"] < 2:
        return None
    loaded = group.load()
    values = loaded[names[0]].transpose("chain", "draw", ...).to_numpy()
    if not np.isfinite(values).all() or np.ptp(values, axis=(0, 1)).min() == 0:
        return None
    share = effective_draws(loaded) / (loaded.sizes["chain"] * loaded.sizes["draw"])
    with warnings.catch_warnings():
        # ArviZ warns where k is large; the count is part of the result.
        warnings.simplefilter("ignore")
        found = arviz_loo(  # type: ignore[no-untyped-call]
            xr.DataTree.from_dict({"log_likelihood": loaded}),
            pointwise=True,
            var_name=names[0],
            reff=min(1.0, share),
        )
    k = np.asarray(found.pareto_k.to_numpy()).reshape(-1)
    return Loo(
        elpd=float(found.elpd),
        error=float(found.se),
        parameters=float(found.p),
        rows=int(k.size),
        unreliable=int(np.sum(k > _RELIABLE)),
    )
