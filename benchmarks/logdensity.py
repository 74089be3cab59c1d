"""Gradients of a Pyro model: `LogDensity` over 16 chains against Pyro's own potential function.

Run: python benchmarks/logdensity.py [--threads N] [--chains C] [--rounds R]

The peer is what `pyro.infer.MCMC` computes at every leapfrog step: `initialize_model`'s potential
function and `potential_grad`, one chain at a time. Both take the same positions in the same
process, in turn; the medians over the rounds are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import potential_grad

from pyro_bnn import LogDensity
from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.infer.cli.script import ModelScript

MODELS = Path(__file__).parent.parent / "models"


def seconds(call: Callable[[], object], budget: float = 0.3) -> float:
    """Time one call: the mean over as many as fit the budget."""
    call()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < budget:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def compare(name: str, chains: int, rounds: int) -> None:
    """Print one line: the time of a chain-gradient on either side and their ratio."""
    script = ModelScript.load(MODELS / f"{name}.py")
    x, y = script.data.train.x, script.data.train.y
    density = LogDensity(script.model, x, y)
    position = density.initial_position(chains, torch.Generator().manual_seed(0))
    # As pyro.infer.MCMC runs by default: validation off.
    pyro.enable_validation(False)
    _, potential, _, _ = initialize_model(script.model, model_args=(x, y))
    one = {site: value[0] for site, value in density.unflatten(position).items()}

    expected, value = potential_grad(potential, one)
    ours, gradient = density.value_and_grad(position)
    torch.testing.assert_close(ours[0], value, rtol=1e-5, atol=0)
    for site, part in density.unflatten(gradient).items():
        torch.testing.assert_close(part[0], expected[site], rtol=1e-4, atol=1e-4)

    batched, single = [], []
    for _ in range(rounds):
        batched.append(seconds(lambda: density.value_and_grad(position)) / chains)
        single.append(seconds(lambda: potential_grad(potential, one)))
    us, them = statistics.median(batched), statistics.median(single)
    print(
        f"{name:20} {density.dim:6,} weights {len(x):6,} rows  "
        f"LogDensity {us * 1e6:7.1f} us  Pyro {them * 1e6:7.1f} us  ratio {them / us:5.1f}"
    )


def main() -> None:
    """Compare the scripts that ship."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"{arguments.chains} chains, {arguments.threads} threads, torch {torch.__version__}")
    for name in ("diabetes_mlp", "two_moons_by_hand", "breast_cancer_mlp", "digits_mlp"):
        compare(name, arguments.chains, arguments.rounds)


if __name__ == "__main__":
    main()
