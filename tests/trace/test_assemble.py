"""Assembling, adding and appending groups."""

from __future__ import annotations

import os

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from pyro_bnn.errors import UserError
from pyro_bnn.trace import GroupAppender, SegmentWriter, add_groups, assemble, open_trace
from pyro_bnn.trace.netcdf import BLOCK_BYTES, LARGEST_CHUNK, chunk_layout

DIMS = {"0.weight": ("h0", "x0"), "2.weight": ("y0", "h0")}


def write_run(run, lengths=(5, 5, 3)) -> dict[str, np.ndarray]:
    """Write segments of the given lengths; return all draws."""
    writer = SegmentWriter(run, DIMS, sync=False)
    parts = []
    for index, length in enumerate(lengths):
        part = {
            "0.weight": torch.randn(2, length, 4, 3),
            "2.weight": torch.randn(2, length, 2, 4, dtype=torch.float64),
        }
        stats = {"diverging": torch.rand(2, length) > 0.5}
        start = sum(lengths[:index])
        writer.write(index, {"posterior": part, "sample_stats": stats}, start)
        parts.append(part | stats)
    return {name: torch.cat([part[name] for part in parts], 1).numpy() for name in parts[0]}


@pytest.mark.parametrize("block_bytes", [1, 700, BLOCK_BYTES])
def test_the_trace_is_the_segments_one_after_another(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("pyro_bnn.trace.netcdf.BLOCK_BYTES", block_bytes)
    written = write_run(tmp_path)
    extra = {"observed_data": xr.Dataset({"y": ("obs", [1, 0, 1])}, {"obs": ["a", "b", "c"]})}
    path = assemble(tmp_path, {"model": "mlp", "jit": True, "sizes": [4, 3]}, extra)
    assert path == tmp_path / "trace.nc"
    assert sorted(os.listdir(tmp_path)) == ["segments", "trace.nc"]
    trace = open_trace(tmp_path)
    assert trace.attrs == {"model": "mlp", "jit": 1, "sizes": "[4, 3]"}
    for site in ("0.weight", "2.weight"):
        assert trace["posterior"][site].values.tobytes() == written[site].tobytes()
    diverging = trace["sample_stats"]["diverging"]
    assert diverging.dtype == bool
    np.testing.assert_array_equal(diverging, written["diverging"])
    np.testing.assert_array_equal(trace["posterior"]["draw"], np.arange(13))
    np.testing.assert_array_equal(trace["observed_data"]["y"], [1, 0, 1])
    np.testing.assert_array_equal(trace["observed_data"]["obs"], ["a", "b", "c"])
    trace.close()


def test_a_run_without_segments_is_refused(tmp_path):
    with pytest.raises(UserError, match="no whole segment"):
        assemble(tmp_path, {})


def test_blocks_are_appended_and_replace_the_group_of_that_name(tmp_path):
    written = write_run(tmp_path)
    path = assemble(tmp_path, {"model": "mlp"})
    for before, order in ((set(), [3, 2, 1, 0]), ({"symmetry"}, [1, 0, 3, 2])):
        trace = open_trace(path)
        posterior = trace["posterior"].to_dataset()
        with GroupAppender(path, "canonical_posterior", also=["symmetry"]) as out:
            for start in range(0, 13, 4):
                block = posterior.isel(draw=slice(start, start + 4))
                out.append(block.isel(h0=order).assign_attrs(rule="sort", sizes=(4,)))
                element = np.broadcast_to(order, (2, block.sizes["draw"], 4))
                symmetry = {"permutation": (("chain", "draw", "h0"), element)}
                out.append(xr.Dataset(symmetry), group="symmetry")
            assert group_names(path) & {"symmetry"} == before
        trace.close()
        trace = open_trace(path)
        canonical = trace["canonical_posterior"]
        assert canonical.attrs == {"rule": "sort", "sizes": "[4]"}
        np.testing.assert_array_equal(canonical["0.weight"], written["0.weight"][:, :, order])
        np.testing.assert_array_equal(canonical["2.weight"], written["2.weight"][..., order])
        np.testing.assert_array_equal(canonical["draw"], np.arange(13))
        assert (trace["symmetry"]["permutation"].values == order).all()
        np.testing.assert_array_equal(trace["posterior"]["0.weight"], written["0.weight"])
        assert trace["sample_stats"]["diverging"].dtype == bool
        assert trace.attrs == {"model": "mlp"}
        trace.close()
    assert sorted(os.listdir(tmp_path)) == ["segments", "trace.nc"]


def test_a_failure_while_appending_leaves_the_trace(tmp_path):
    write_run(tmp_path)
    path = assemble(tmp_path, {})
    before = path.read_bytes()
    block = xr.Dataset({"w": (("chain", "draw"), np.zeros((2, 3)))})
    with pytest.raises(UserError, match=r"group 'canonical_posterior' .* make them alike"):
        append(path, block, block.rename(w="v"))
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["segments", "trace.nc"]


def test_small_groups_are_added_and_replaced(tmp_path):
    written = write_run(tmp_path)
    path = assemble(tmp_path, {"model": "mlp"})
    for values in ([1.0, np.nan], [5.0, 6.0, 7.0]):
        data = xr.Dataset({"mean": ("test", values)}, {"test": np.arange(len(values))})
        add_groups(path, {"predictions": data}, {"gradients": 12})
    trace = open_trace(path)
    np.testing.assert_array_equal(trace["predictions"]["mean"], [5.0, 6.0, 7.0])
    np.testing.assert_array_equal(trace["posterior"]["0.weight"], written["0.weight"])
    assert trace.attrs == {"model": "mlp", "gradients": 12}
    trace.close()
    with pytest.raises(UserError, match=r"nowhere\.nc is missing"):
        add_groups(tmp_path / "nowhere.nc", {})


@pytest.mark.parametrize(("elements", "draws"), [(1, 10), (2_410, 4_000), (10**7, 1_000)])
def test_chunks_serve_blocks_of_draws_and_slabs_of_variables(elements, draws):
    chains = 16
    shape = (chains, 1, elements)
    zeros = np.broadcast_to(np.float32(0), shape)
    data = xr.Dataset({"w": (("chain", "draw", "x"), zeros)})
    rows, layout = chunk_layout(data, draws)
    chunk = layout["w"]
    assert chunk[:2] == (chains, rows)
    assert 4 * np.prod(chunk) <= LARGEST_CHUNK
    # Whoever reads one block of draws, or one weight over all draws, reads a bounded amount.
    assert rows == 1 or 4 * chains * rows * elements <= BLOCK_BYTES
    assert 4 * chains * draws * chunk[2] <= max(2 * BLOCK_BYTES, 64 * 2**10 * draws)
    # Padding of the last chunks stays small.
    padded = np.ceil(draws / rows) * rows * np.ceil(elements / chunk[2]) * chunk[2]
    assert padded <= 1.1 * draws * elements


def test_no_handle_stays_open(tmp_path):
    write_run(tmp_path)
    path = assemble(tmp_path, {})
    add_groups(path, {"x": xr.Dataset({"a": 1})})
    for target in (path, tmp_path):
        trace = open_trace(target)
        trace["posterior"]["0.weight"].sum().compute()
        trace.close()
    handles = [os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors()]
    assert not [handle for handle in handles if str(tmp_path) in handle]


def append(path, *blocks: xr.Dataset) -> None:
    with GroupAppender(path, "canonical_posterior") as out:
        for block in blocks:
            out.append(block)


def group_names(path) -> set[str]:
    with netCDF4.Dataset(path) as file:
        return set(file.groups)


def open_descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
