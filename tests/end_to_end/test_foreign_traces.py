"""Judging a trace that another package wrote, with a model script."""

from __future__ import annotations

import json

import arviz_base
import numpy as np
import pytest
import xarray as xr

from pyro_bnn.trace import open_trace


@pytest.fixture
def foreign(tmp_path):
    """Return a function that writes a NetCDF file as ArviZ writes those of other samplers."""

    def write(shapes):
        rng = np.random.default_rng(0)
        draws = {name: rng.normal(size=(2, 30, *shape)) for name, shape in shapes.items()}
        tree = arviz_base.from_dict({"posterior": draws})
        tree.to_netcdf(tmp_path / "foreign.nc")
        return tmp_path / "foreign.nc"

    return write


def sites(script):
    """Return the model script and the shapes of its sites."""
    model = script()
    names = {}
    exec(model.read_text(), names)  # a script of this test's own
    from pyro_bnn.logdensity import LogDensity

    train = names["data"]().train
    density = LogDensity(names["model"], train.x, train.y)
    return model, {name: tuple(site.shape) for name, site in density.sites.items()}


def test_a_trace_of_another_sampler_is_judged_with_a_model(foreign, script, command):
    model, shapes = sites(script)
    path = foreign(shapes)
    with xr.open_datatree(path) as tree:
        positive = tree["posterior"].to_dataset().map(np.abs).load()  # scales have to be
    positive.to_netcdf(path, mode="w", group="posterior")
    bare = command("report", path)
    assert bare.code == 0, bare.err
    done = command("report", path, "--model", model)
    assert done.code == 0, done.err
    summary = json.loads(path.with_suffix(".summary.json").read_text())
    assert summary["test.inputs"] == 10
    assert summary["loo.rows"] == 20
    assert np.isfinite(summary["corrupted.rmse"]) if "corrupted.rmse" in summary else True
    with open_trace(path) as trace:
        assert dict(trace["log_likelihood"].sizes) == {"chain": 2, "draw": 30, "train": 20}
    assert "PSIS-LOO" in path.with_suffix(".report.html").read_text()
    compared = command("compare", path)
    assert compared.code == 0, compared.err


def test_a_trace_of_another_model_is_refused_by_what_differs(foreign, script, command):
    model, shapes = sites(script)
    smaller = dict(shapes)
    name, _ = smaller.popitem()
    command("report", foreign(smaller), "--model", model).assert_refused(name, "another model")
    command("report", foreign({**shapes, name: (7,)}), "--model", model).assert_refused("(7,)")
