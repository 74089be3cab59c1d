"""Minimum mass: batched matrix balancing against CVXPY, against L-BFGS, and against depth.

Run: python benchmarks/symmetry_scaling.py [--threads N] (CVXPY needs the extra ``bench``)

Prints a row of a table for each part: the work, ours, the peer, the ratio, what is aimed at.

The network of the first part is 64-50-50-10 with ReLU and biases, its draws standard normal.
CVXPY solves the same convex problem in log scales with its default exponential-cone solver, one
draw at a time; L-BFGS runs in float64 over the log scales of a ResNet-18 without norms.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from pyro_bnn.symmetry import SymmetryGroup, discover
from pyro_bnn.symmetry.balance import balance
from pyro_bnn.symmetry.mass_graph import Edge, total_mass
from pyro_bnn.symmetry.scaling import edges_of


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    """Return a ReLU network."""
    layers: list[nn.Module] = []
    for m, n in itertools.pairwise(widths):
        layers += [nn.Linear(m, n, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def problem(group: SymmetryGroup, draws: int) -> tuple[list[Edge], list[int]]:
    """Return the balancing problem of standard normal draws."""
    generator = torch.Generator().manual_seed(0)
    theta = {
        site: torch.randn(draws, *shape, generator=generator, dtype=torch.float64)
        for site, shape in group.shapes.items()
    }
    sizes = [family.size for family in group.kind("scale").values()]
    return edges_of(group, theta, None, True), sizes


def by_cvxpy(edges: Sequence[Edge], sizes: Sequence[int], draw: int) -> tuple[float, float]:
    """Solve one draw with CVXPY; return seconds and the objective reached."""
    import cvxpy as cp

    u = [cp.Variable(n) for n in sizes]
    terms = []
    for edge in edges:
        mass = edge.mass[draw].numpy()
        if len(edge.nodes) == 1:
            terms.append(mass @ cp.exp(2 * edge.exponents[0] * u[edge.nodes[0]]))
            continue
        (i, j), (e, f) = edge.nodes, edge.exponents
        row = cp.reshape(2 * e * u[i], (sizes[i], 1), order="C") @ np.ones((1, sizes[j]))
        column = np.ones((sizes[i], 1)) @ cp.reshape(2 * f * u[j], (1, sizes[j]), order="C")
        terms.append(cp.sum(cp.multiply(mass, cp.exp(row + column))))
    task = cp.Problem(cp.Minimize(sum(terms)))
    start = time.perf_counter()
    task.solve()
    seconds = time.perf_counter() - start
    found = [torch.as_tensor(x.value)[None] for x in u]
    return seconds, float(total_mass([e.take(slice(draw, draw + 1)) for e in edges], found))


def against_cvxpy(draws: int, solved: int) -> None:
    """Time both on the same draws."""
    edges, sizes = problem(discover(mlp(64, 50, 50, 10), torch.zeros(4, 64)), draws)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        found = balance(edges, sizes, tolerance=1e-8)
        times.append((time.perf_counter() - start) / draws)
    ours = statistics.median(times)
    mass = total_mass(edges, found.log_scales)
    reached = f"{found.sweeps} sweeps, residual {float(found.residual.max()):.1e}"
    work = f"min-mass, 64-50-50-10, {draws} draws, per draw"
    try:
        by_cvxpy(edges, sizes, 0)
        peers = [by_cvxpy(edges, sizes, draw) for draw in range(solved)]
    except ImportError:
        row(work, f"{ours * 1e6:.0f} us, {reached}", "CVXPY is not installed", "", "1,500")
        return
    theirs = statistics.median(seconds for seconds, _ in peers)
    worst = max(float(mass[k]) / value - 1 for k, (_, value) in enumerate(peers))
    row(
        work,
        f"{ours * 1e6:.0f} us, {reached}",
        f"CVXPY {theirs * 1e3:.0f} ms",
        f"{theirs / ours:,.0f}; objective at most {worst:+.1e} (relative) from the peer's",
        "1,500; no higher than 1e-9",
    )


def row(*cells: str) -> None:
    """Print a row of the table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def against_depth() -> None:
    """Count sweeps as layers are added."""
    two, one = {}, {}
    for depth in (3, 5, 9, 17, 33):
        edges, sizes = problem(
            discover(mlp(*[32] * (depth + 1), bias=False), torch.zeros(2, 32)), 64
        )
        two[depth] = balance(edges, sizes, tolerance=1e-8).sweeps
        one[depth] = balance(edges, sizes, tolerance=1e-8, coarse=False).sweeps
    row(
        f"sweeps at {', '.join(map(str, two))} layers",
        ", ".join(map(str, two.values())),
        "without the coarse level: " + ", ".join(map(str, one.values())),
        f"{two[33] / two[3]:.2f} from 3 to 33 layers",
        "under 2",
    )


class Block(nn.Module):
    """A residual block without norms."""

    def __init__(self, m: int, n: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(m, n, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(n, n, 3, 1, 1, bias=False)
        self.c = nn.Conv2d(m, n, 1, stride, bias=False) if m != n else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add two convolutions to the input."""
        return torch.relu(self.b(torch.relu(self.a(x))) + self.c(x))


def against_lbfgs() -> None:
    """Balance a ResNet-18 without norms."""
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    blocks, m = [], 64
    for n in widths:
        blocks.append(Block(m, n, 2 if n != m else 1))
        m = n
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    net = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), *blocks, *head)
    edges, sizes = problem(discover(net, torch.zeros(1, 3, 64, 64)), 1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        found = balance(edges, sizes, tolerance=1e-8)
        times.append(time.perf_counter() - start)
    ours = statistics.median(times)
    least = float(total_mass(edges, found.log_scales))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.tensor(flat, requires_grad=True)
        value = total_mass(edges, [part[None] for part in u.split(list(sizes))]).sum()
        (gradient,) = torch.autograd.grad(value, u)
        return value.item(), gradient.numpy()

    start = time.perf_counter()
    peer = minimize(
        objective,
        np.zeros(sum(sizes)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-7},
    )
    theirs = time.perf_counter() - start
    row(
        "min-mass, ResNet-18 without norms (11 M weights)",
        f"{ours * 1e3:.0f} ms, {found.sweeps} sweeps",
        f"L-BFGS {theirs * 1e3:.0f} ms",
        f"{theirs / ours:.1f}; objective {least / peer.fun - 1:+.1e} from the peer's",
        "5; equal to 1e-9",
    )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--solved", type=int, default=10, help="draws that CVXPY solves")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    row("work", "ours", "peer", "ratio", "aim")
    row(*["---"] * 5)
    against_cvxpy(options.draws, options.solved)
    against_depth()
    against_lbfgs()


if __name__ == "__main__":
    main()
