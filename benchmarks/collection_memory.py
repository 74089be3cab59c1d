"""A collection larger than the memory it is worked on with: quotient and diagnostics, limited.

Run: python benchmarks/collection_memory.py; ``--quick`` takes a minute.

200 networks of 2 million weights (1.6 GB as float32) are written to a collection, put in canonical
form, and judged by every diagnostic and by the MMD of two halves, in a process whose memory may
grow by 768 MiB beyond what its imports take (RLIMIT_DATA: the kernel refuses more, which ends the
process). ``--members 1000 --width
3300`` is the size of 1,000 networks of 11 million weights (44 GB on disk).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import xarray as xr
from torch import nn

MEBI = 2**20


def build(width: int) -> nn.Sequential:
    """Return a network of about ``width * (width + 74)`` weights."""
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def write(folder: Path, members: int, width: int) -> None:
    """Fill a collection with random networks."""
    from pyro_bnn.trace import CollectionWriter

    out = CollectionWriter(folder, "benchmark")
    for seed in range(members):
        torch.manual_seed(seed)
        params = {name: p.detach() for name, p in build(width).named_parameters()}
        out.append(params, name=f"{seed:06d}", seed=seed)


def resident() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBI


def data_now() -> int:
    """Bytes of private writable memory, which RLIMIT_DATA counts."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status does not tell VmData")


def work(folder: Path, width: int, ceiling: int, *, compare: bool) -> None:
    """Divide, diagnose and, if wanted, compare two halves, under the ceiling."""
    torch.set_num_threads(1)
    from pyro_bnn.diagnostics import diagnose, posterior_quality, summarize
    from pyro_bnn.symmetry import Quotient, discover
    from pyro_bnn.symmetry.members import quotient_of_members
    from pyro_bnn.trace import Collection, open_trace

    group = discover(build(width), torch.zeros(5, 64))
    before, start = data_now(), resident()
    limit = before + ceiling * MEBI
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    told = f"ceiling {ceiling} MiB above the {before / MEBI:.0f} MiB of the imports"

    def stage(name: str, begun: tuple[float, float]) -> None:
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
        print(
            f"{name:<12} {wall:7.1f} s ({cpu:.1f} s CPU), peak {resident() - start:.0f} MiB above "
            "the imports",
            flush=True,
        )

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    begun = now()
    collection = Collection.open(folder)
    stage("verify", begun)
    begun = now()
    canonical = quotient_of_members(Quotient(group), collection)
    stage("quotient", begun)
    begun = now()
    with open_trace(folder) as trace:
        summary = summarize(trace, diagnose(trace))
    stage("diagnostics", begun)
    if compare:
        begun = now()
        half = len(collection) // 2
        halves = collection.names[:half], collection.names[half:]
        trees = [
            xr.DataTree.from_dict({"posterior": collection.select(names).dataset(None)})
            for names in halves
        ]
        posterior_quality(*trees, permutations=50, resamples=50, by_layer=False)
        stage("MMD", begun)
    size = len(collection) * collection.member_bytes / 2**30
    print(
        f"{len(collection)} members, {collection.member_bytes // 4:,} weights, {size:.2f} GiB, "
        f"within a {told}; {len(canonical)} canonical, {summary['chains']} chains judged"
    )


def main() -> None:
    """Write in one process, work in another under the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 members of 170,000 weights")
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--width", type=int, default=1_378, help="1,378: 2.0 million weights")
    parser.add_argument("--ceiling", type=int, default=768, help="MiB beyond the imports")
    parser.add_argument("--folder", type=Path, help="a new temporary one by default")
    parser.add_argument("--no-mmd", action="store_true", help="do not compare two halves")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.members, given.width, given.ceiling = 40, 376, 768
    if given.work:
        work(given.folder, given.width, given.ceiling, compare=not given.no_mmd)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        started = time.perf_counter()
        write(folder, given.members, given.width)
        print(f"write        {time.perf_counter() - started:7.1f} s", flush=True)
        command = [sys.executable, __file__, "--work", "--folder", str(folder)]
        command += ["--width", str(given.width), "--ceiling", str(given.ceiling)]
        command += ["--no-mmd"] if given.no_mmd else []
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
