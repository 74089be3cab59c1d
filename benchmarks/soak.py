"""A long run of a small network: memory stays flat, and the draws fit the exact posterior.

    python benchmarks/soak.py --draws 100000 --chains 16

The model is linear in its weights, so that mean and covariance of the posterior are known in closed
form. Draws are streamed to a directory that is removed at the end. Resident memory is noted from a
tenth of the draws on, when every buffer has been used; the script fails if it grows by more than
5 % from there, or if an average lies more than five standard errors from where it has to be.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from arviz_stats.base import array_stats

from pyro_bnn.infer import HMC, MCMC
from pyro_bnn.trace import open_trace

NOISE = 0.5


def resident_megabytes() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def model(x: torch.Tensor, y: torch.Tensor) -> None:
    """Sample the weights of a linear network, then its noisy outputs."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, NOISE), obs=y)


def main() -> int:
    """Run, and return 0 if nothing grew and nothing is off."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--weights", type=int, default=10)
    parser.add_argument("--segment-draws", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, options.weights, generator=generator, dtype=torch.float64)
    y = x.sum(1) + NOISE * torch.randn(60, generator=generator, dtype=torch.float64)
    precision = x.mT @ x / NOISE**2 + torch.eye(options.weights, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    exact = (covariance @ x.mT @ y / NOISE**2).numpy()

    seen: list[tuple[int, float]] = []

    def watch(kernel: object, params: object, stage: str, i: int) -> None:
        if stage == "Sample" and (i + 1) % max(1, options.draws // 50) == 0:
            seen.append((i + 1, resident_megabytes()))

    with tempfile.TemporaryDirectory() as folder:
        mcmc = MCMC(
            HMC(model, num_steps=6, jitter=0.5),
            options.draws,
            warmup_steps=500,
            num_chains=options.chains,
            hook_fn=watch,
            run_dir=Path(folder) / "run",
            segment_draws=options.segment_draws,
            seed=0,
        )
        began = time.perf_counter()
        mcmc.run(x, y)
        seconds = time.perf_counter() - began
        with open_trace(Path(folder) / "run") as trace:
            z = worst_error(
                trace["posterior"]["weight"], exact, covariance.diagonal().sqrt().numpy()
            )
    settled = [memory for draw, memory in seen if draw > options.draws // 10]
    growth = max(settled) / settled[0] - 1
    total = options.draws * options.chains
    print(f"{options.draws:,} draws of {options.chains} chains of {options.weights} weights")
    print(f"{seconds:,.0f} s, {total / seconds:,.0f} draws a second")
    print(f"resident memory {settled[0]:.1f} MB at a tenth, {max(settled):.1f} MB at most")
    print(f"growth {growth:+.1%}")
    print(f"mean and deviation within {z:.1f} standard errors of the exact posterior")
    return int(growth > 0.05 or z > 5)


def worst_error(draws: object, mean: np.ndarray, deviation: np.ndarray) -> float:
    """Return the largest distance of an average from its exact value, in standard errors.

    The averages are those of each weight and of its squared deviation from the exact mean, a weight
    in memory at a time.
    """
    worst = 0.0
    for index in range(len(mean)):
        values = draws[..., index].to_numpy()
        for sample, exact in (
            (values, mean[index]),
            ((values - mean[index]) ** 2, deviation[index] ** 2),
        ):
            error = array_stats.mcse(sample, chain_axis=0, draw_axis=1)
            worst = max(worst, abs(sample.mean() - exact) / float(error))
    return worst


if __name__ == "__main__":
    sys.exit(main())
