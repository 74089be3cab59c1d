"""A collection is worked on with less memory than it has itself, under a limit of the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "collection_memory.py", "--no-mmd", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_quotient_and_diagnostics_stay_below_the_size_of_the_collection():
    done = run("--members=150", "--width=700", "--ceiling=256")
    assert done.returncode == 0, done.stderr
    gibibytes = float(re.search(r"([\d.]+) GiB", done.stdout)[1])
    peaks = [int(peak) for peak in re.findall(r"peak (\d+) MiB", done.stdout)]
    assert len(peaks) == 3
    assert max(peaks) <= 256 < 1024 * gibibytes


@pytest.mark.slow
def test_the_limit_is_one():
    done = run("--members=3", "--width=700", "--ceiling=16")
    assert done.returncode != 0
    assert re.search("memory|MemoryError|allocate", done.stderr)
