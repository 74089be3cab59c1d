"""Time and memory of the squared MMD of two sets of networks, layer by layer.

Run ``python benchmarks/mmd.py``; ``--quick`` takes seconds.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics.quality import posterior_quality


def members(count: int, width: int, seed: int) -> xr.DataTree:
    """Make `count` independent networks of two hidden layers."""
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (width, width), "2.weight": (width, width), "4.weight": (10, width)}
    posterior = xr.Dataset(
        {
            name: (
                ("chain", "draw", f"{name}_0", f"{name}_1"),
                rng.standard_normal((count, 1, *shape), dtype=np.float32),
            )
            for name, shape in shapes.items()
        }
    )
    return xr.DataTree.from_dict({"posterior": posterior})


def main() -> None:
    """Compare two sets of one distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    for count, width in ((100, 32),) if quick else ((100, 128), (500, 128), (1000, 128)):
        traces = [members(count, width, seed) for seed in (0, 1)]
        weights = 2 * width**2 + 10 * width
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu = time.perf_counter(), time.process_time()
        found = posterior_quality(*traces, samples=count)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        whole = found.whole("weight")
        assert whole is not None
        print(
            f"2 x {count:,} networks of {weights:,} weights: {seconds:.1f} s ({cpu:.1f} s CPU), "
            f"{extra:.0f} MiB beside the traces, MMD^2 {whole.value:.1e}, p {whole.p_value:.2f}"
        )


if __name__ == "__main__":
    main()
