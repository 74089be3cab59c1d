"""What no diagnostic may depend on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics import diagnose, summarize


def test_order_of_units_changes_no_number_of_functions_or_canonical_weights(
    trace: xr.DataTree,
) -> None:
    """Every draw's units are put into another order; the functions stay what they are."""
    rng = np.random.default_rng(0)
    posterior = trace["posterior"].to_dataset()
    orders = rng.permuted(np.broadcast_to(np.arange(4), (4, 100, 4)), axis=-1)
    index = xr.DataArray(orders, dims=("chain", "draw", "position"))
    moved = {
        name: site.isel(h0=index).rename(position="h0").transpose(*site.dims)
        if "h0" in site.dims
        else site
        for name, site in posterior.items()
    }
    shuffled = trace.copy()
    shuffled["posterior"] = xr.DataTree(xr.Dataset(moved, coords=posterior.coords))
    before, after = (summarize(t, diagnose(t, 20)) for t in (trace, shuffled))
    changed = {key for key in before if before[key] != after[key]}
    of_weights = ("rhat.weight", "ess.weight", "ess_tail.weight", "mcse.weight", "exchangeability")
    assert changed
    assert all(key.startswith(of_weights) for key in changed)
