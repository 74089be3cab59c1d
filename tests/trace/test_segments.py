"""Segments are whole and keep every bit."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_bnn.trace import (
    SegmentWriter,
    discard_segments,
    load_state,
    open_trace,
    segment_paths,
)

NAN_WITH_PAYLOAD = np.array([0x7FC0BEEF], dtype=np.uint32).view(np.float32)[0]

WRITER = """
import os, signal, sys, time
from pathlib import Path
import torch
from pyro_bnn.trace import SegmentWriter, assemble, save_state

def write(run):
    writer = SegmentWriter(run, {"w": ("h0", "x0")})
    for index in range(10_000):
        value = torch.full((2, 10, 40, 50), float(index))
        writer.write(index % 50, {"posterior": {"w": value}}, 10 * (index % 50))
        save_state(run / "state.safetensors", {"w": torch.full((5000,), index)}, {"i": str(index)})
        if index % 3 == 2:
            assemble(run, {"index": index})

for run, delay in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    child = os.fork()
    if child == 0:
        write(Path(run))
    started = time.monotonic()
    while not (Path(run) / "segments" / "000000.nc").exists():
        assert time.monotonic() < started + 60
        time.sleep(0.01)
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def groups(draws: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    weight = torch.randn(2, draws, 4, 3)
    weight[0, 0, 0, :] = torch.tensor([float("nan"), float("inf"), -0.0])
    weight[0, 0, 1, 0] = torch.from_numpy(np.array(NAN_WITH_PAYLOAD))
    return {
        "posterior": {"0.weight": weight, "b": torch.randn(2, draws, 4, dtype=torch.float64)},
        "sample_stats": {
            "diverging": torch.rand(2, draws) > 0.5,
            "n_steps": torch.randint(0, 2**40, (2, draws)),
        },
    }


def test_round_trip_keeps_every_bit(tmp_path):
    written = [groups(), groups()]
    writer = SegmentWriter(tmp_path, {"0.weight": ("h0", "x0"), "b": ("h0",)})
    for index, segment in enumerate(written):
        path = writer.write(index, segment, draw_start=3 * index)
        assert path == tmp_path / "segments" / f"{index:06d}.nc"
    trace = open_trace(tmp_path)
    for group, sites in written[0].items():
        for site in sites:
            whole = torch.cat([segment[group][site] for segment in written], 1).numpy()
            read = trace[group][site]
            assert read.dtype == whole.dtype
            assert read.values.tobytes() == whole.tobytes()
        np.testing.assert_array_equal(trace[group]["draw"], np.arange(6))
    assert trace["posterior"]["0.weight"].dims == ("chain", "draw", "h0", "x0")
    trace.close()


def test_listing_is_in_order_and_ignores_what_is_no_segment(tmp_path):
    writer = SegmentWriter(tmp_path, sync=False)
    for index in (999_999, 2, 1_000_000, 0):
        writer.write(index, groups(), 0)
    (tmp_path / "segments" / ".000003.nc.partial").write_bytes(b"half")
    (tmp_path / "segments" / "notes.nc").write_bytes(b"")
    assert [int(path.stem) for path in segment_paths(tmp_path)] == [0, 2, 999_999, 1_000_000]
    assert segment_paths(tmp_path / "nowhere") == []


def test_discarding_removes_the_tail_and_the_leftovers(tmp_path):
    writer = SegmentWriter(tmp_path, sync=False)
    for index in range(4):
        writer.write(index, groups(), 3 * index)
    (tmp_path / "segments" / ".000004.nc.partial").write_bytes(b"half")
    discard_segments(tmp_path, 2)
    assert sorted(os.listdir(tmp_path / "segments")) == ["000000.nc", "000001.nc"]
    discard_segments(tmp_path / "nowhere", 0)


def test_a_failed_write_leaves_the_old_segment(tmp_path):
    writer = SegmentWriter(tmp_path)
    path = writer.write(0, groups(), 0)
    before = path.read_bytes()
    broken = groups()
    broken["sample_stats"]["lp"] = torch.zeros(2, 5)
    with pytest.raises(ValueError, match="lp"):
        writer.write(0, broken, 0)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_kill_at_any_moment_leaves_whole_files(tmp_path):
    delays = random.Random(0)
    runs = [tmp_path / f"run{round}" for round in range(10)]
    command = [f"{value}" for run in runs for value in (run, delays.uniform(0.0, 0.7))]
    subprocess.run(
        [sys.executable, "-c", WRITER, *command],
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    found = 0
    for run in runs:
        for path in segment_paths(run):
            segment = open_trace(path)
            values = segment["posterior"]["w"].values
            segment.close()
            assert values.shape == (2, 10, 40, 50)
            assert (values == values[0, 0, 0, 0]).all()
            assert int(values[0, 0, 0, 0]) % 50 == int(path.stem)
            found += 1
        if (run / "state.safetensors").exists():
            tensors, metadata = load_state(run / "state.safetensors")
            assert (tensors["w"] == int(metadata["i"])).all()
        if (run / "trace.nc").exists():
            trace = open_trace(run)
            assert trace["posterior"].sizes["draw"] % 10 == 0
            assert not trace["posterior"]["w"].isnull().any()
            trace.close()
            found += 1
    assert found >= len(runs)
