"""Peak memory of a whole run, sampling to report, at 400 and at 4,000 draws of 16 chains.

Run: python benchmarks/memory.py

Each run is the command line in a process of its own, on the digits network (2,410 weights: the
4,000 draws take 617 MB as float32); trajectories have one step, since their length uses no memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def peak_megabytes(draws: int, folder: Path) -> float:
    """Run the command line and return its peak resident memory."""
    command = [sys.executable, "-m", "pyro_bnn.infer", "models/digits_mlp.py"]
    command += ["--draws", str(draws), "--warmup", "20", "--out", str(folder / str(draws))]
    command += ["--recipe", "hmc.toml", "--set", "kernel.num_steps=1", "--set", "kernel.jitter=0.0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"the run of {draws} draws failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Compare the two."""
    with tempfile.TemporaryDirectory() as folder:
        short = peak_megabytes(400, Path(folder))
        long = peak_megabytes(4000, Path(folder))
    print(f"400 draws {short:.0f} MB, 4,000 draws {long:.0f} MB, difference {long - short:.0f} MB")


if __name__ == "__main__":
    main()
