"""The whole quotient of a trace of HMC on the digits, against sampling it.

Run: python benchmarks/symmetry_quotient.py [--threads N] [--draws D] [--warmup W]

Samples `models/digits_mlp.py` by `inference/hmc.toml`, eagerly, writes the posterior to a file as
a run does, and divides it by the symmetry group: min-mass, signs and order of every draw, the
canonical draws and the group elements written beside it, the function checked on a sample. The
other orders are timed on the same file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
import xarray as xr

from pyro_bnn import LogDensity
from pyro_bnn.infer import MCMC
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import site_dataset

ROOT = Path(__file__).parent.parent
ORDERS = (
    ("sort", "barycentre"),
    ("align", "barycentre"),
    ("align", "previous"),
    ("nearest-neighbour", "barycentre"),
)


def main() -> None:
    """Sample once, divide in each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draws", type=int, default=0, help="as the recipe says by default")
    parser.add_argument("--warmup", type=int, default=0, help="as the recipe says by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    script = ModelScript.load(ROOT / "models" / "digits_mlp.py")
    recipe = Recipe.read(ROOT / "inference" / "hmc.toml")
    density = LogDensity(script.model, script.data.train.x, script.data.train.y)
    draws, warmup = options.draws or recipe.run.draws, options.warmup or recipe.run.warmup
    assert recipe.kernel is not None
    mcmc = MCMC(
        recipe.kernel.kernel(density),
        draws,
        warmup,
        num_chains=recipe.run.chains,
        seed=0,
        disable_progbar=True,
    )
    start = time.perf_counter()
    mcmc.run()
    sampling = time.perf_counter() - start
    start = time.perf_counter()
    group = discover(density)
    finding = time.perf_counter() - start
    print(f"sampling {sampling:.1f} s, discovery {finding:.2f} s")
    print("| order | seconds | of sampling | aim |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.nc"
        samples = mcmc.get_samples(group_by_chain=True)
        posterior = site_dataset({site: samples[site] for site in density.sites}, group.dims)
        xr.DataTree.from_dict({"posterior": posterior}).to_netcdf(path)
        for order, reference in ORDERS:
            start = time.perf_counter()
            quotient = Quotient(group, permutation=order, reference=reference)
            quotient.apply(path, source=density)
            seconds = time.perf_counter() - start
            name = order if order == "sort" else f"{order}, {reference}"
            aim = "under 5 %" if order == "sort" else ""
            print(f"| {name} | {seconds:.2f} | {100 * seconds / sampling:.1f} % | {aim} |")


if __name__ == "__main__":
    main()
