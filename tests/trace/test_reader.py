"""Traces open lazily; what cannot be opened is named."""

from __future__ import annotations

import gc

import arviz_base
import arviz_stats
import dask.array
import numpy as np
import pytest
import torch
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace import SegmentWriter, assemble, open_trace


@pytest.fixture
def run(tmp_path):
    writer = SegmentWriter(tmp_path, {"w": ("h0", "x0")}, sync=False)
    for index in range(4):
        segment = {"posterior": {"w": torch.randn(2, 5, 40, 30)}}
        writer.write(index, segment, draw_start=5 * index)
    return tmp_path


def test_values_stay_on_disk_until_asked_for(run):
    for _ in ("segments", "trace"):
        trace = open_trace(run)
        weight = trace["posterior"]["w"]
        assert isinstance(weight.data, dask.array.Array)
        assert weight.shape == (2, 20, 40, 30)
        np.testing.assert_array_equal(weight[:, 7:9, 3].compute(), weight.values[:, 7:9, 3])
        trace.close()
        assemble(run, {})
    trace = open_trace(run, chunks=None)
    assert not trace["posterior"].to_dataset().chunksizes
    trace.close()


def test_chunks_are_blocks_of_draws_that_all_variables_share(run, monkeypatch):
    monkeypatch.setattr("pyro_bnn.trace.netcdf.BLOCK_BYTES", 2 * 6 * 4 * 1200)
    assemble(run, {})
    trace = open_trace(run)
    sizes = trace["posterior"].to_dataset().chunksizes
    assert sizes["draw"] == (5, 5, 5, 5)
    assert sizes["h0"] == (40,)
    trace.close()
    trace = open_trace(run, chunks={"draw": 10})
    assert trace["posterior"].to_dataset().chunksizes["draw"] == (10, 10)
    trace.close()


def test_a_truncated_segment_is_named_and_nothing_is_deleted(run):
    broken = run / "segments" / "000002.nc"
    broken.write_bytes(broken.read_bytes()[:-200])
    for act in (open_trace, lambda path: assemble(path, {})):
        with pytest.raises(UserError) as caught:
            act(run)
        message = str(caught.value)
        assert str(broken) in message
        assert "the other 3 segments are all whole" in message
        assert "restore it from a copy, or move it out" in message
        assert "\n" not in message
    assert len(list((run / "segments").iterdir())) == 4
    broken.rename(run / "000002.nc")
    trace = open_trace(run)
    np.testing.assert_array_equal(trace["posterior"]["draw"], [*range(10), *range(15, 20)])
    trace.close()


def test_several_unreadable_segments_are_counted(run):
    for index in (1, 3):
        (run / "segments" / f"00000{index}.nc").write_bytes(b"")
    with pytest.raises(UserError, match=r"000001\.nc.* 2 of the other 3 .*000003\.nc"):
        open_trace(run)


def test_a_truncated_trace_is_named(run):
    path = assemble(run, {})
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"trace\.nc is truncated .* assembles it again"):
        open_trace(run)
    other = run / "other.nc"
    other.write_text("no NetCDF")
    with pytest.raises(UserError, match=r"other\.nc is truncated or not a NetCDF-4 file"):
        open_trace(other)


def test_places_without_a_trace_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no trace at .*nowhere"):
        open_trace(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"neither trace\.nc nor whole segments"):
        open_trace(tmp_path)


def test_traces_that_arviz_wrote_open_too(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 50, 3))
    theirs = arviz_base.from_dict({"posterior": {"mu": values}, "observed_data": {"y": np.ones(7)}})
    theirs.to_netcdf(tmp_path / "theirs.nc", engine="netcdf4")
    trace = open_trace(str(tmp_path / "theirs.nc"))
    assert isinstance(trace["posterior"]["mu"].data, dask.array.Array)
    np.testing.assert_array_equal(trace["posterior"]["mu"], values)
    np.testing.assert_array_equal(trace["observed_data"]["y"], np.ones(7))
    trace.close()


def test_arviz_takes_a_trace_without_dask(tmp_path):
    draws = torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0))
    SegmentWriter(tmp_path, {"w": ("h0",)}, sync=False).write(
        0, {"posterior": {"w": draws}}, draw_start=0
    )
    assemble(tmp_path, {})
    trace = open_trace(tmp_path, chunks=None)
    assert float(arviz_stats.rhat(trace)["w"].max()) < 1.2
    assert len(arviz_stats.summary(trace)) == 3
    trace.close()


def test_a_trace_that_is_left_open_makes_no_noise(run):
    trace = open_trace(run)
    mean = trace["posterior"]["w"].mean("draw")
    del trace
    gc.collect()
    assert np.isfinite(mean.values).all()


def test_a_trace_is_written_and_read_by_xarray_alike(run):
    trace = open_trace(assemble(run, {"model": "mlp"}))
    with xr.open_datatree(run / "trace.nc", engine="netcdf4") as plain:
        xr.testing.assert_identical(trace.load(), plain.load())
    trace.close()
