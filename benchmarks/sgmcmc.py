"""Cyclical SGHMC on a convolutional network: this package against `posteriors`, vmapped by hand.

Run: python benchmarks/sgmcmc.py [--threads N] [--rounds R] [--mnist DIR] [--profile]

A network of 792 weights on 28 x 28 images, 16 chains, minibatches of 128 rows drawn for each chain
at each step. Both run in one process in turn, on the same data and from the same weights; medians
of the rounds are compared. DIR holds the files of MNIST as their authors name them; without it,
scikit-learn's digits are enlarged to the size. `--profile` adds where our step spends its time.
Needs `pip install posteriors`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.profiler import profile

from pyro_bnn import LogDensity
from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.infer import SGHMC, Cyclical
from pyro_bnn.nn import Normal, lift

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import posteriors

CHAINS, BATCH, STEPS_PER_DRAW = 16, 128, 10
RATE, FRICTION, CYCLE = 1e-6, 0.05, 1000
PRIOR = 0.3


def network() -> nn.Sequential:
    """Return the network: 792 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(3)),
        *(nn.Flatten(), nn.Linear(8, 10)),
    )


def images(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Return images ``(row, 1, 28, 28)`` in [0, 1] and their labels."""
    if folder is not None:
        raw = np.fromfile(_file(folder, "train-images-idx3-ubyte"), np.uint8)[16:]
        labels = np.fromfile(_file(folder, "train-labels-idx1-ubyte"), np.uint8)[8:]
        return torch.tensor(raw.reshape(-1, 1, 28, 28) / 255).float(), torch.tensor(labels).long()
    small, digits = load_digits(return_X_y=True)
    grid = torch.tensor(small / 16).float().reshape(-1, 1, 8, 8)
    return nn.functional.interpolate(grid, size=28, mode="bilinear"), torch.tensor(digits)


def _file(folder: Path, name: str) -> Path:
    return next(path for path in (folder / name, folder / "raw" / name) if path.is_file())


def ours(density: LogDensity, position: Tensor) -> Iterator[None]:
    """Make `STEPS_PER_DRAW` steps of all chains at each ``next``."""
    kernel = SGHMC(
        density,
        RATE,
        FRICTION,
        batch_size=BATCH,
        schedule=Cyclical(CYCLE, exploration=0.0),
        steps_per_draw=STEPS_PER_DRAW,
    )
    source = torch.Generator().manual_seed(0)
    state = kernel.init(position, density, source)
    while True:
        state, _ = kernel.step(state, density, source)
        yield


def theirs(
    log_posterior: Callable[[dict[str, Tensor], tuple[Tensor, Tensor]], Tensor],
    weights: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
) -> Iterator[None]:
    """Make the same steps by `posteriors`, whose momentum is the velocity over the learning rate.

    Its update is elementwise, so that it works on stacked weights; the log posterior is vmapped.
    """
    batched = vmap(log_posterior)
    root = math.sqrt(RATE)

    def rate(step: Tensor) -> Tensor:
        return root * (0.5 * (1 + torch.cos(math.pi * (step % CYCLE) / CYCLE))).sqrt()

    def summed(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batched(params, batch).sum(), torch.empty(0)

    transform = posteriors.sgmcmc.sghmc.build(summed, lr=rate, alpha=FRICTION / root)
    state = transform.init(weights)
    source = torch.Generator().manual_seed(0)
    while True:
        for _ in range(STEPS_PER_DRAW):
            rows = torch.randint(len(x), (CHAINS, BATCH), generator=source)
            state, _ = transform.update(state, (x[rows], y[rows]))
        yield


def seconds(runner: Iterator[None], budget: float) -> float:
    """Time one step of all chains: the mean over as many as fit the budget."""
    next(runner)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < budget:
        next(runner)
        count += STEPS_PER_DRAW
    return (time.perf_counter() - start) / count


def main() -> None:
    """Check that both compute the same gradient, then time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of one timing")
    parser.add_argument("--mnist", type=Path, default=None)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    x, y = images(arguments.mnist)
    net = network()
    bnn = lift(net, prior=Normal(scale=PRIOR))

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    def log_posterior(params: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = functional_call(net, params, (batch[0],))
        likelihood = -nn.functional.cross_entropy(logits, batch[1], reduction="mean") * len(x)
        return likelihood - sum(p.square().sum() for p in params.values()) / (2 * PRIOR**2)

    density = LogDensity(model, x, y)
    position = 0.1 * torch.randn(CHAINS, density.dim, generator=torch.Generator().manual_seed(0))
    weights = {name: value.contiguous() for name, value in density.unflatten(position).items()}
    rows = torch.randint(len(x), (CHAINS, BATCH))
    _, expected = density.value_and_grad(position, indices=rows)
    gradient, _ = vmap(grad_and_value(log_posterior))(weights, (x[rows], y[rows]))
    torch.testing.assert_close(-density.flatten(gradient), expected, rtol=1e-3, atol=1e-1)

    runners = {
        "pyro_bnn": ours(density, position),
        "posteriors": theirs(log_posterior, weights, x, y),
    }
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(arguments.rounds):
        for name, runner in runners.items():
            times[name].append(seconds(runner, arguments.budget))
    print(
        f"{density.dim} weights, {len(x):,} rows, {CHAINS} chains, batches of {BATCH}, "
        f"{arguments.threads} threads, torch {torch.__version__}, posteriors "
        f"{posteriors.__version__}, path: {density.gradient_path}"
    )
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:12} {1 / median:7.1f} steps of all chains a second")
    print(f"ratio        {medians['posteriors'] / medians['pyro_bnn']:7.2f}")
    if arguments.profile:
        with profile() as profiler:
            for _ in range(5):
                next(runners["pyro_bnn"])
        table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=14)
        print(table)


if __name__ == "__main__":
    main()
