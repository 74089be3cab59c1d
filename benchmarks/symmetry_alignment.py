"""Alignment of draws to a reference, against weight matching one draw at a time.

Run: python benchmarks/symmetry_alignment.py [--threads N] [--draws S] [--solvers]

The peer is the algorithm of Git Re-Basin (Ainsworth et al., 2023) in NumPy and SciPy: coordinate
ascent over the layers of a 64-50-50-10 network in random order from the labels as they are,
until a sweep gains nothing. Draws and reference are standard normal, the hardest case: there is
no common structure to find. With --solvers, the linear assignment of SciPy against that of lapx
(of the extra ``bench``) by size, on scores of random units.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from pyro_bnn.symmetry import align, discover
from pyro_bnn.symmetry.assignment import by_scipy
from pyro_bnn.symmetry.sort import sort

Weights = dict[str, np.ndarray]


def weight_matching(draw: Weights, target: Weights, rng: np.random.Generator) -> float:
    """Match one draw; return the inner product with the target that is reached."""
    first = np.arange(50)
    second = np.arange(50)
    while True:
        before = overlap(draw, target, first, second)
        for layer in rng.permutation(2):
            if layer == 0:
                score = target["0.weight"] @ draw["0.weight"].T
                score += np.outer(target["0.bias"], draw["0.bias"])
                score += target["2.weight"].T @ draw["2.weight"][second]
                first = linear_sum_assignment(score, maximize=True)[1]
            else:
                score = target["2.weight"] @ draw["2.weight"][:, first].T
                score += np.outer(target["2.bias"], draw["2.bias"])
                score += target["4.weight"].T @ draw["4.weight"]
                second = linear_sum_assignment(score, maximize=True)[1]
        if overlap(draw, target, first, second) <= before + 1e-12:
            return before


def overlap(draw: Weights, target: Weights, first: np.ndarray, second: np.ndarray) -> float:
    """Return the inner product of a permuted draw with the target."""
    return float(
        (draw["0.weight"][first] * target["0.weight"]).sum()
        + (draw["0.bias"][first] * target["0.bias"]).sum()
        + (draw["2.weight"][second][:, first] * target["2.weight"]).sum()
        + (draw["2.bias"][second] * target["2.bias"]).sum()
        + (draw["4.weight"][:, second] * target["4.weight"]).sum()
        + (draw["4.bias"] * target["4.bias"]).sum()
    )


def solvers() -> None:
    """Time both solvers of linear assignment; the smaller is used from `LAPX_FROM` on."""
    import lap

    rng = np.random.default_rng(0)
    print("| size | SciPy, us | lapx, us | ratio |")
    print("| --- | --- | --- | --- |")
    for n in (8, 16, 32, 50, 100, 200, 400):
        draws, units = rng.standard_normal((max(4000 // n, 4), n, 64)), rng.standard_normal((n, 64))
        scores = draws @ units.T
        took = {}
        for name, solve in (
            ("scipy", by_scipy),
            ("lapx", lambda table: lap.lapjvr_batch(-table, n_threads=1)),
        ):
            times = []
            for _ in range(5):
                start = time.perf_counter()
                solve(scores)
                times.append((time.perf_counter() - start) / len(scores) * 1e6)
            took[name] = min(times)
        ratio = took["scipy"] / took["lapx"]
        print(f"| {n} | {took['scipy']:.0f} | {took['lapx']:.0f} | {ratio:.1f} |", flush=True)


def main() -> None:
    """Time both and compare what they reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--solvers", action="store_true", help="linear assignment alone")
    options = parser.parse_args()
    if options.solvers:
        solvers()
        return
    torch.set_num_threads(options.threads)
    net = nn.Sequential(
        nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)
    )
    group = discover(net, torch.zeros(4, 64))
    generator = torch.Generator().manual_seed(0)
    theta = {
        site: torch.randn(options.draws + 1, *shape, generator=generator, dtype=torch.float64)
        for site, shape in group.shapes.items()
    }
    reference = {site: value[0] for site, value in theta.items()}
    draws = {site: value[1:] for site, value in theta.items()}

    start = time.perf_counter()
    ordered, _ = sort(group, draws)
    ours = align(group, ordered, reference)
    our_time = (time.perf_counter() - start) / options.draws

    rng = np.random.default_rng(0)
    target = {site: value.numpy() for site, value in reference.items()}
    arrays = {site: value.numpy() for site, value in draws.items()}
    start = time.perf_counter()
    theirs = torch.tensor(
        [
            weight_matching({site: value[k] for site, value in arrays.items()}, target, rng)
            for k in range(options.draws)
        ]
    )
    their_time = (time.perf_counter() - start) / options.draws
    better = (ours.overlap >= theirs - 1e-9).double().mean()
    print("| work | ours | peer | ratio | aim |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| alignment, 64-50-50-10, {options.draws} draws, per draw | {our_time * 1e3:.2f} ms | "
        f"weight matching {their_time * 1e3:.2f} ms | {our_time / their_time:.1f} times its time; "
        f"better or equal on {100 * float(better):.1f} % of draws, overlap "
        f"{float(ours.overlap.mean() / theirs.mean()):.3f} of the peer's | "
        "at most 5 times; 99 % |"
    )


if __name__ == "__main__":
    main()
