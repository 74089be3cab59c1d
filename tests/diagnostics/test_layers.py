"""Convergence taken apart by site and by layer."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.diagnostics.layers import MAX_ROWS, by_layer, by_site
from pyro_bnn.diagnostics.report.spaces import layer_rows


def deep(layers: int, stuck: str) -> xr.DataTree:
    """Make draws of many layers, whose chains disagree at one site."""
    rng = np.random.default_rng(0)
    sites = {}
    for layer in range(layers):
        for name, width in ((f"{layer}.weight", 3), (f"{layer}.bias", 2)):
            values = rng.normal(size=(4, 60, width))
            if name == stuck:
                values += 9 * np.arange(4)[:, None, None]
            sites[name] = (("chain", "draw", f"{name}_0"), values)
    return xr.DataTree.from_dict({"posterior": xr.Dataset(sites)})


def test_sites_and_layers_share_out_every_scalar(trace: xr.DataTree) -> None:
    whole = convergence(trace, "weight")
    assert whole is not None
    sites, layers = by_site(whole), by_layer(whole)
    assert [one.name for one in sites] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [len(one.rhat) for one in sites] == [20, 4, 12, 3]
    assert [(one.name, len(one.rhat)) for one in layers] == [("0", 24), ("2", 15)]
    for parts in (sites, layers):
        np.testing.assert_array_equal(np.concatenate([one.rhat for one in parts]), whole.rhat)
        np.testing.assert_array_equal(
            np.concatenate([one.relative_mcse for one in parts]), whole.relative_mcse
        )


def test_the_report_shows_the_layer_that_does_not_mix() -> None:
    shallow = layer_rows(diagnose(deep(3, "1.bias")))
    assert [row["name"] for row in shallow][2:4] == ["1.weight", "1.bias"]
    worst = max(shallow, key=lambda row: float(row["cells"][0].split(" / ")[1]))
    assert worst["name"] == "1.bias"
    assert len(worst["cells"]) == 3
    many = layer_rows(diagnose(deep(MAX_ROWS, "7.weight")))
    assert [row["name"] for row in many] == [str(k) for k in range(MAX_ROWS)]
    assert max(many, key=lambda row: float(row["cells"][0].split(" / ")[1]))["name"] == "7"


def test_one_site_needs_no_table_and_canonical_weights_stand_beside(trace: xr.DataTree) -> None:
    one = xr.DataTree.from_dict({"posterior": trace["posterior"].to_dataset()[["2.bias"]]})
    assert layer_rows(diagnose(one)) == []
    found = diagnose(trace)
    rows = layer_rows(found)
    # Three of raw weights, three of canonical ones, and the R-hat of the control.
    assert {len(row["cells"]) for row in rows} == {7}
    assert found.null is not None
    control = {part.name: part.rhat for part in by_site(found.null)}
    for row in rows:
        median = float(row["cells"][6].split(" / ")[0])
        assert median == pytest.approx(np.median(control[row["name"]]), abs=0.01)
