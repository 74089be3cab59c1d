"""Draw the bias of the kernels that never reject against their step size.

Run: python analysis/sgmcmc_bias.py [--chains C] [--out docs/_static/sgmcmc-bias.svg]

A Bayesian linear regression with 10 weights and 60 rows, whose posterior is known. The bias of a
kernel is that of the posterior variance, summed over the weights, relative to the truth; chains
start at exact draws and run until that is forgotten. Prints the table that it draws; takes some
minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_bnn import LogDensity
from pyro_bnn.infer import MCLMC, SGHMC, SGLD, SGNHT
from pyro_bnn.infer.kernels.kernel import Kernel

ROWS, DIM, NOISE, BATCH = 60, 10, 0.7, 20
TARGET = Path(__file__).parent.parent / "docs" / "_static" / "sgmcmc-bias.svg"


class Problem(NamedTuple):
    """The density and what is known of it."""

    density: LogDensity
    mean: Tensor
    covariance: Tensor

    @property
    def curvature(self) -> float:
        """The largest curvature of the potential energy."""
        return 1 / float(torch.linalg.eigvalsh(self.covariance).min())


class Curve(NamedTuple):
    """One kernel: its name, its colour and mark, how a part of a step builds it, and the parts."""

    name: str
    style: str
    build: Callable[[float, Problem], Kernel]
    parts: tuple[float, ...] = (0.4, 0.2, 0.1, 0.05)


def problem() -> Problem:
    """Simulate the regression."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, DIM, generator=source, dtype=torch.float64)
    y = x.sum(1) + NOISE * torch.randn(ROWS, generator=source, dtype=torch.float64)

    def model(x: Tensor, y: Tensor) -> None:
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(DIM), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight, NOISE), obs=y)

    precision = x.mT @ x / NOISE**2 + torch.eye(DIM)
    mean = torch.linalg.solve(precision, x.mT @ y / NOISE**2)
    return Problem(LogDensity(model, x, y), mean, torch.linalg.inv(precision))


def of_gradients(kind: type[Kernel], batch_size: int | None) -> Callable[[float, Problem], Kernel]:
    """Build a kernel whose step size is a part of the inverse of the largest curvature."""

    def build(part: float, target: Problem) -> Kernel:
        options = {} if kind is SGLD else {"friction": 0.3}
        return kind(None, part / target.curvature, batch_size=batch_size, **options)  # type: ignore[call-arg]

    return build


def microcanonical(part: float, target: Problem) -> Kernel:
    """Build MCLMC with a step that is a part of the radius of the stiffest direction."""
    step_size = part * (DIM / target.curvature) ** 0.5
    return MCLMC(None, step_size, length=3 * step_size / part, steps_per_draw=2)


CURVES = (
    Curve("SGLD, all rows", "C0o-", of_gradients(SGLD, None)),
    Curve(f"SGLD, batches of {BATCH}", "C0s--", of_gradients(SGLD, BATCH)),
    Curve("SGHMC, all rows", "C1o-", of_gradients(SGHMC, None)),
    Curve(f"SGHMC, batches of {BATCH}", "C1s--", of_gradients(SGHMC, BATCH)),
    Curve("SGNHT, all rows", "C2o-", of_gradients(SGNHT, None)),
    Curve(f"SGNHT, batches of {BATCH}", "C2s--", of_gradients(SGNHT, BATCH)),
)
UNADJUSTED = Curve("MCLMC, unadjusted", "C3o-", microcanonical, (2.0, 1.4, 1.0, 0.7))


def bias(kernel: Kernel, target: Problem, chains: int, draws: int) -> tuple[float, float]:
    """Relative bias of the summed variance, and its standard error over chains."""
    source = torch.Generator().manual_seed(1)
    root = torch.linalg.cholesky(target.covariance)
    noise = torch.randn(chains, DIM, generator=source, dtype=torch.float64)
    state = kernel.init(target.mean + noise @ root.mT, target.density, source)
    squares = torch.zeros(chains, dtype=torch.float64)
    burn_in = draws // 4
    for index in range(burn_in + draws):
        state, _ = kernel.step(state, target.density, source)
        if index >= burn_in:
            squares += (state.position - target.mean).square().sum(1) / draws
    relative = squares / target.covariance.trace() - 1
    return float(relative.mean()), float(relative.std()) / chains**0.5


def measure(curve: Curve, target: Problem, chains: int) -> list[tuple[float, float]]:
    """Return bias and error at each part, and print them."""
    found = []
    for part in curve.parts:
        found.append(bias(curve.build(part, target), target, chains, round(60 / min(part, 0.4))))
        print(f"{curve.name:26} part {part:5.2f}  bias {found[-1][0]:8.4f} +- {found[-1][1]:.4f}")
    return found


def plot(axes: plt.Axes, curve: Curve, found: list[tuple[float, float]]) -> None:
    """Draw one line with its errors."""
    values, errors = np.abs(np.array(found)).T
    # On a logarithmic axis an error bar stays above zero.
    errors = np.minimum(errors, 0.9 * values)
    axes.errorbar(
        curve.parts, values, errors, fmt=curve.style, label=curve.name, markersize=4, lw=1.2
    )


def main() -> None:
    """Measure every kernel and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    target = problem()
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "sgmcmc-bias"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.6), layout="constrained")
    for curve in CURVES:
        plot(left, curve, measure(curve, target, arguments.chains))
    plot(right, UNADJUSTED, measure(UNADJUSTED, target, arguments.chains))
    for axes, curve, order, height in ((left, CURVES[0], 1, 0.02), (right, UNADJUSTED, 2, 0.01)):
        parts = np.array(curve.parts)
        guide = height * (parts / parts.min()) ** order
        label = "in proportion to the step" if order == 1 else "in proportion to its square"
        axes.plot(parts, guide, "k:", lw=1, label=label)
        axes.set(xscale="log", yscale="log", xticks=parts, xticklabels=[str(p) for p in parts])
    left.set_xlabel("learning rate x largest curvature")
    right.set_xlabel("step / radius of the stiffest direction")
    left.set_ylabel("relative bias of the variance")
    for axes in (left, right):
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, frameon=False)
    figure.savefig(arguments.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
