"""Folders of checkpoints become traces, traces become checkpoints, and bad files are told."""

from __future__ import annotations

import json
import os

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import nn

from pyro_bnn import UserError
from pyro_bnn.trace import open_trace
from pyro_bnn.trace.checkpoints import export_checkpoints, import_checkpoints

SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_every_format_and_half_precision(tmp_path):
    nets = [network(seed) for seed in range(4)]
    save_file(nets[0].state_dict(), tmp_path / "a.safetensors")
    torch.save(nets[1].state_dict(), tmp_path / "b.pt")
    nested = {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in nets[2].state_dict().items()}}
    torch.save(nested, tmp_path / "c.ckpt")
    (tmp_path / "deeper").mkdir()
    save_file(nets[3].half().state_dict(), tmp_path / "deeper" / "d.safetensors")
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    found = import_checkpoints(tmp_path, SHAPES, prefix="module.")
    assert found.files == ["a.safetensors", "b.pt", "c.ckpt", "deeper/d.safetensors"]
    assert found.skipped == {}
    posterior = found.trace["posterior"]
    assert set(posterior.data_vars) == set(SHAPES)
    assert posterior["0.weight"].shape == (4, 1, 4, 3)
    assert posterior["0.weight"].dtype == np.float32
    for chain, net in enumerate(nets):
        expected = net.state_dict()["2.weight"].float().numpy()
        np.testing.assert_array_equal(posterior["2.weight"][chain, 0], expected)
    assert json.loads(found.trace.attrs["files"]) == found.files
    # Without shapes: all that is floating-point, running statistics too, but no counters.
    everything = import_checkpoints(tmp_path, prefix="module.")
    assert "1.running_mean" in everything.trace["posterior"]
    assert "1.num_batches_tracked" not in everything.trace["posterior"]
    # It is a trace: stored and opened again.
    found.trace.to_netcdf(tmp_path / "trace.nc")
    with open_trace(tmp_path / "trace.nc") as trace:
        np.testing.assert_array_equal(trace["posterior"]["0.bias"], posterior["0.bias"])


class Command:
    """Would run on loading by pickle."""

    def __reduce__(self):
        return os.mkdir, (os.environ["PYRO_BNN_TEST_TRAP"],)


def test_bad_files_are_skipped_counted_and_named(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    monkeypatch.setenv("PYRO_BNN_TEST_TRAP", str(trap))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    good = network(0).state_dict()
    save_file(good, folder / "good.safetensors")
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").write_bytes(b"")
    torch.save(good, folder / "cut.pt")
    (folder / "cut.pt").write_bytes((folder / "cut.pt").read_bytes()[:500])
    torch.save({"0.weight": good["0.weight"], "hook": Command()}, folder / "code.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "noise.pt").write_bytes(bytes(range(256)) * 4)
    (folder / "byte.pt").write_bytes(b"x")
    (folder / "nothing.pt").write_bytes(b"\x80\x02.")  # a pickle that ends before it has begun
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).state_dict()
    save_file(other, folder / "wider.safetensors")
    save_file({"0.weight": good["0.weight"]}, folder / "partial.safetensors")
    found = import_checkpoints(folder, SHAPES)
    assert found.files == ["good.safetensors"]
    assert found.skipped["empty.pt"] == "the file is empty"
    assert "code" in found.skipped["code.pt"]
    assert not trap.exists()
    for name in ("half.safetensors", "cut.pt", "noise.pt", "byte.pt", "nothing.pt"):
        assert found.skipped[name] == "the file is truncated or not a checkpoint"
    assert found.skipped["list.pt"] == "the file holds a list, not a state dict"
    assert found.skipped["wider.safetensors"] == (
        "'0.weight' has shape (5, 3), not (4, 3), '0.bias' has shape (5,), not (4,), "
        "'2.weight' has shape (2, 5), not (2, 4)"
    )
    assert found.skipped["partial.safetensors"].startswith("'0.bias' is missing, '2.weight'")
    assert set(found.skipped) == {p.name for p in folder.iterdir()} - {"good.safetensors"}
    assert json.loads(found.trace.attrs["skipped"]) == found.skipped


def test_nothing_to_take_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        import_checkpoints(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 1 .* a\.pt: the file is empty"):
        import_checkpoints(tmp_path)


def test_there_and_back(tmp_path):
    for seed in range(3):
        save_file(network(seed).state_dict(), tmp_path / f"{seed}.safetensors")
    trace = import_checkpoints(tmp_path, SHAPES).trace
    written = export_checkpoints(trace, tmp_path / "out")
    assert [path.name for path in written][:2] == [
        "chain-0000-draw-0000.safetensors",
        "chain-0001-draw-0000.safetensors",
    ]
    torch.testing.assert_close(load_file(written[2])["2.bias"], network(2).state_dict()["2.bias"])
    again = import_checkpoints(tmp_path / "out").trace
    for name in SHAPES:
        np.testing.assert_array_equal(again["posterior"][name], trace["posterior"][name])
    with pytest.raises(UserError, match="no group 'canonical_posterior'; it has posterior"):
        export_checkpoints(trace, tmp_path, group="canonical_posterior")


def test_export_reads_each_block_once(tmp_path):
    read = []

    def counted(block):
        read.append(1)
        return block

    values = np.random.default_rng(0).normal(size=(3, 8, 5))
    lazy = da.map_blocks(counted, da.from_array(values, chunks=(3, 4, 5)), meta=np.empty((0, 0, 0)))
    weights = xr.Dataset({"w": (("chain", "draw", "x"), lazy)})
    weights["w"].encoding["chunksizes"] = (3, 4, 5)
    written = export_checkpoints(xr.DataTree.from_dict({"posterior": weights}), tmp_path)
    assert len(read) == 2
    assert [path.name for path in written] == [
        f"chain-{chain:04d}-draw-{draw:04d}.safetensors" for chain in range(3) for draw in range(8)
    ]
    for path, expected in zip(written, values.reshape(24, 5), strict=True):
        np.testing.assert_array_equal(load_file(path)["w"], expected)
