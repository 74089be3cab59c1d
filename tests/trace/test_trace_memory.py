"""Memory does not grow with the number of draws."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
import torch
from pyro_bnn.trace import GroupAppender, SegmentWriter, add_groups, assemble, open_trace

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

run, draws = Path(sys.argv[1]), int(sys.argv[2])
writer = SegmentWriter(run, {"0.weight": ("h0", "x0"), "2.weight": ("y0", "h0")}, sync=False)
for index in range(draws // 50):
    segment = {
        "0.weight": torch.randn(16, 50, 32, 64),
        "0.bias": torch.randn(16, 50, 32),
        "2.weight": torch.randn(16, 50, 10, 32),
    }
    writer.write(index, {"posterior": segment}, 50 * index)
    if index == 0:
        start = peak()
path = assemble(run, {})
trace = open_trace(run)
posterior = trace["posterior"].to_dataset()
total = float(posterior["0.weight"].sum(dtype="float64").compute())
with GroupAppender(path, "canonical_posterior") as out:
    for first in range(0, draws, 70):
        out.append(posterior.isel(draw=slice(first, first + 70)).isel(h0=slice(None, None, -1)))
add_groups(path, {"canonical_posterior": posterior[["0.bias"]].isel(draw=[0]).load()})
trace.close()
print(path.stat().st_size / 2**20, peak() - start)
"""


@pytest.mark.parametrize(
    ("draws", "megabytes", "limit"),
    [
        (1_000, 140, 110),
        pytest.param(4_000, 560, 160, marks=pytest.mark.slow),
    ],
)
def test_a_trace_passes_through_in_blocks(tmp_path, draws, megabytes, limit):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(draws)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    size, growth = map(float, result.stdout.split())
    assert size > megabytes
    assert growth < limit
