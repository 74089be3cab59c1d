"""Every pair of 1,000 members on 10,000 inputs of 100 classes: 5e11 terms p log p of mixtures.

Run ``python benchmarks/diversity.py``; ``--inputs 500`` is a twentieth of it, ``--quick`` is done
in seconds. Predictions are stored as float32 (4 GB at full size) and are read from disk a block of
inputs at a time, by reads and not by mapping: the peak of resident memory has no page of the file.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pyro_bnn.diagnostics.diversity import Single, pairwise


def write(path: Path, members: int, inputs: int, classes: int) -> None:
    """Write softmax outputs of random logits that share a part, input by input."""
    rng = np.random.default_rng(0)
    step = max(1, 2**24 // (members * classes))
    with path.open("wb") as file:
        for start in range(0, inputs, step):
            size = min(step, inputs - start)
            logits = 2 * rng.standard_normal((size, 1, classes), dtype=np.float32)
            logits = logits + rng.standard_normal((size, members, classes), dtype=np.float32)
            weights = np.exp(logits)
            (weights / weights.sum(axis=2, keepdims=True)).tofile(file)


def stream(path: Path, members: int, classes: int) -> Iterator[Single]:
    """Read blocks of inputs of at most 32 MiB, which are tasks."""
    row = members * classes
    with path.open("rb") as file:
        while len(block := np.fromfile(file, np.float32, max(1, 2**23 // row) * row)):
            yield np.moveaxis(block.reshape(-1, members, classes), 0, 1)


def main() -> None:
    """Compare all pairs and print time, speed and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--inputs", type=int, default=10_000)
    given = parser.parse_args()
    members, inputs, classes = (100, 1_000, 20) if given.quick else (1_000, given.inputs, 100)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.f32"
        write(path, members, inputs, classes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu = time.perf_counter(), time.process_time()

        def show(done: int, total: int) -> None:
            print(f"\r{done:,} of {total:,} inputs", end="", flush=True)

        found = pairwise(stream(path, members, classes), True, show, inputs)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    terms = len(found["distance"]) * inputs * classes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    information = found["mutual_information"]
    low, high = np.quantile(information, [0.05, 0.95])
    print(
        f"\n{members:,} members, {inputs:,} inputs, {classes} classes: {seconds:.0f} s "
        f"({cpu:.0f} s CPU, {1e9 * cpu / terms:.2f} ns a term), peak {peak:.2f} GiB "
        f"(before: {before / 2**20:.2f})\nmutual information {information.mean():.4f} nats, "
        f"5 to 95 %: {low:.4f} to {high:.4f}"
    )


if __name__ == "__main__":
    main()
