"""Full-batch gradients of data that do not fit into memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import resource, sys
import pyro, pyro.distributions as dist, torch
from torch import nn
from pyro_bnn import LogDensity, lift
from pyro_bnn.nn import Normal

rows, ceiling = int(sys.argv[2]), int(sys.argv[3])
bnn = lift(nn.Sequential(nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 1)), prior=Normal(scale=1.0))

def model(x, y=None):
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), 1.0), obs=y)

def one_gradient(rows, chunk):
    x = torch.from_file(sys.argv[1], shared=True, size=64 * rows).reshape(rows, 64)
    density = LogDensity(model, x, torch.ones(rows)).chunked(chunk)
    density.initial_position(2, torch.Generator())
    return density.value_and_grad(torch.full((2, density.dim), 0.1))

one_gradient(1000, 500)
# Private memory from here on; the shared pages of the file do not count.
with open("/proc/self/status") as status:
    held = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (1024 * held + ceiling,) * 2)
value, gradient = one_gradient(rows, 8192)
# Rows of zeros whose prediction is b2 + sum_j w2_j tanh(b1_j).
mean = 0.1 + 4 * 0.1 * torch.tensor(0.1).tanh()
half_log = 0.5 * torch.log(torch.tensor(2 * torch.pi))
expected = rows * (0.5 * (1 - mean) ** 2 + half_log) + 265 * (0.5 * 0.1**2 + half_log)
torch.testing.assert_close(value, expected.expand(2), rtol=1e-4, atol=0.0)
try:
    one_gradient(rows, rows)
except RuntimeError as error:
    assert "allocate memory" in str(error)
else:
    raise AssertionError("all rows at once fit into the memory that was allowed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of private memory are Linux's")
def test_gradients_of_a_mapped_file_take_the_memory_of_a_chunk(tmp_path):
    rows, ceiling = 800_000, 100_000_000
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(4 * 64 * rows)
    assert path.stat().st_size > 2 * ceiling
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(rows), str(ceiling)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
