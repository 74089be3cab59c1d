"""How long after the command the default run has its first step, and its first draw.

Run: python benchmarks/first_draw.py [--repeats N] [--compile auto|always|never]

Starts `python -m pyro_bnn.infer` and watches its directory. The first step of warm-up is on disk
as a state, where a run saves after every step; the first draw after warm-up as a segment, where
there is one draw only. Both runs are ended there. Seconds from the start of the process, imports
included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds_until(file: str, *options: str) -> float:
    """Start the default run with some options; return when `file` is there, and end the run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "pyro_bnn.infer", "--no-report", "--out", str(out)]
        start = time.perf_counter()
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        try:
            while not (out / file).exists():
                if process.poll() is not None:
                    raise SystemExit(f"the run ended before it wrote {file}")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Print both times of every repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", default="never", choices=["auto", "always", "never"])
    arguments = parser.parse_args()
    compiling = f"--set=run.compile={arguments.compile}"
    for _ in range(arguments.repeats):
        step = seconds_until("state.safetensors", "--set=run.segment_draws=1", compiling)
        draw = seconds_until("segments/000000.nc", "--draws=1", compiling)
        print(f"first step {step:.1f} s, first draw {draw:.1f} s", flush=True)


if __name__ == "__main__":
    main()
