"""Deep ensembles: stacked members against a loop of networks, and against `jax.vmap`.

Run: python benchmarks/ensemble_training.py [--members M] [--epochs E] [--rounds R]
     python benchmarks/ensemble_training.py --optunet --data FOLDER [--members M] [--workers W]

32 MLPs 64-32-10 on scikit-learn's digits, Adam, batches of 128, 50 epochs, one thread. The loop
trains the same networks one after another with torch's fused Adam; the jitted step of `jax.vmap`
(where jax is installed) takes the whole ensemble at once, as ours does, whose gradient is run as
a graph, and once more compiled, as the command line does from `WORTH_COMPILING` chain-gradients on.
Each side makes the same number of steps; the first epoch, in which graphs are traced and compiled,
is timed apart. Sides take turns; medians over the rounds are compared.

`--optunet` trains M convolutional networks of 392 weights on 8,000 images of MNIST for 10 epochs,
once by an `Ensemble` in W processes and once in a plain loop on one thread: the same work.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.nn import Normal, architectures, categorical, lift

MODELS = Path(__file__).parent.parent / "models"
BATCH, RATE = 128, 0.01


def stacked(density: LogDensity, members: int) -> Callable[[int], None]:
    """Return a function that trains an ensemble of ours for some epochs."""

    def train(epochs: int) -> None:
        training = Training(epochs=epochs, batch_size=BATCH, learning_rate=RATE)
        Ensemble(PointEstimate(density, training), size=members).fit(seed=0)

    return train


def loop(x: torch.Tensor, y: torch.Tensor, members: int) -> Callable[[int], None]:
    """Return a function that trains one network after another."""

    def train(epochs: int) -> None:
        for member in range(members):
            torch.manual_seed(member)
            net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
            optimiser = torch.optim.Adam(net.parameters(), lr=RATE, fused=True, weight_decay=1e-4)
            for _ in range(epochs):
                order = torch.randperm(len(x))
                for start in range(0, len(x) - BATCH + 1, BATCH):
                    rows = order[start : start + BATCH]
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                    optimiser.step()

    return train


def by_jax(x: torch.Tensor, y: torch.Tensor, members: int) -> Callable[[int], None] | None:
    """Return a function that trains the ensemble by a jitted step of `jax.vmap`, or None."""
    try:
        import jax
        import jax.numpy as jnp
        import numpy as np
    except ImportError:
        return None
    images, labels = jnp.asarray(x.numpy()), jnp.asarray(y.numpy())

    def loss(weights, rows):
        first, bias, last, end = weights
        hidden = jax.nn.relu(images[rows] @ first + bias)
        chosen = jax.nn.log_softmax(hidden @ last + end)[jnp.arange(len(rows)), labels[rows]]
        return -chosen.mean() + 0.5e-4 * sum((w**2).sum() for w in weights)

    @jax.jit
    def step(weights, moments, squares, count, rows):
        slopes = jax.vmap(jax.grad(loss))(weights, rows)
        moments = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments, slopes)
        squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, slopes)

        def moved(w, m, s):
            unbiased = jnp.sqrt(s / (1 - 0.999**count)) + 1e-8
            return w - RATE * m / (1 - 0.9**count) / unbiased

        return jax.tree.map(moved, weights, moments, squares), moments, squares, count + 1

    def train(epochs: int) -> None:
        source = np.random.default_rng(0)
        shapes = ((64, 32), (32,), (32, 10), (10,))
        weights = [
            jnp.asarray(0.1 * source.normal(size=(members, *s)), dtype=jnp.float32) for s in shapes
        ]
        moments, squares = ([jnp.zeros_like(w) for w in weights] for _ in range(2))
        count = jnp.asarray(1.0)
        for _ in range(epochs):
            order = np.stack([source.permutation(len(images)) for _ in range(members)])
            for start in range(0, len(images) - BATCH + 1, BATCH):
                rows = order[:, start : start + BATCH]
                weights, moments, squares, count = step(weights, moments, squares, count, rows)
        jax.block_until_ready(weights)

    return train


def seconds(train: Callable[[int], None], epochs: int) -> float:
    """Time one training."""
    start = time.perf_counter()
    train(epochs)
    return time.perf_counter() - start


def compare(members: int, epochs: int, rounds: int) -> None:
    """Print one line a side, and the ratios."""
    script = ModelScript.load(MODELS / "digits_mlp.py")
    x, y = script.data.train.x, script.data.train.y
    density = LogDensity(script.model, x, y)
    sides = {"stacked": stacked(density, members)}
    sides["stacked, compiled"] = stacked(density.compiled(), members)
    sides["loop, fused Adam"] = loop(x, y, members)
    in_jax = by_jax(x, y, members)
    if in_jax is not None:
        sides["jax.vmap, jitted step"] = in_jax
    first = {name: seconds(train, 1) for name, train in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, train in sides.items():
            times[name].append(seconds(train, epochs))
    steps = members * epochs * (len(x) // BATCH)
    ours = statistics.median(times["stacked"])
    compiled = statistics.median(times["stacked, compiled"])
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"{name:22} {median:7.2f} s  {median / steps * 1e6:7.1f} us a step and member  "
            f"{median / ours:5.2f} x the time of stacked  {median / compiled:5.2f} x of compiled  "
            f"first epoch {first[name]:5.2f} s"
        )


class Images:
    """MNIST as tensors: the first 8,000 training images."""

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import MNIST

        raw = MNIST(folder, train=True)
        self.x = ((raw.data[:8000].float() / 255 - 0.1307) / 0.3081)[:, None]
        self.y = raw.targets[:8000]


def one_by_one(images: Images, members: int, epochs: int) -> None:
    """Train OptuNets one after another with torch, as a plain loop does, on one thread."""
    torch.set_num_threads(1)
    for member in range(members):
        torch.manual_seed(member)
        net = architectures.optunet()
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
        steps = epochs * (len(images.x) // 64)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(images.x))
            for start in range(0, len(images.x) - 63, 64):
                rows = order[start : start + 64]
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(images.x[rows]), images.y[rows]).backward()
                optimiser.step()
                cycle.step()


def optunets(folder: Path, members: int, epochs: int, workers: int, seed: int) -> None:
    """Train OptuNets by worker processes and in a loop; print the ratio and the peak memory."""
    images = Images(folder)
    bnn = lift(architectures.optunet(), prior=Normal(scale="fan_in", gain=2.0))

    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return categorical(bnn(x), y)

    torch.set_num_threads(workers)
    density = LogDensity(model, images.x, images.y)
    training = Training(
        epochs=epochs,
        batch_size=64,
        optimiser="sgd",
        learning_rate=0.1,
        schedule="one-cycle",
    )
    ensemble = Ensemble(PointEstimate(density, training), members, workers=workers)
    with tempfile.TemporaryDirectory() as run:
        started = time.perf_counter()
        ensemble.fit(seed=seed, run_dir=run)
        ours = time.perf_counter() - started
    # Of this process and of the largest worker: no more than this many of them at a time.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    started = time.perf_counter()
    one_by_one(images, members, epochs)
    loop = time.perf_counter() - started
    print(f"{members} OptuNets of {density.dim} weights, {epochs} epochs of {len(images.x)} images")
    print(f"ours, {workers} processes  {ours:8.1f} s, start and tracing included")
    print(f"loop, one thread    {loop:8.1f} s, ratio {loop / ours:.2f}")
    print(f"{ensemble.batching}")
    print(f"{len(ensemble.failures)} trainings failed")
    print(f"peak memory at most {(own + workers * children) / 1024:.0f} MB, all processes together")


def main() -> None:
    """Compare the sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--epochs", type=int, help="50; 10 with --optunet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--optunet", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="of --optunet")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds MNIST/")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.optunet:
        epochs = arguments.epochs or 10
        optunets(arguments.data, arguments.members, epochs, arguments.workers, seed=0)
        return
    torch.set_num_threads(1)
    epochs = arguments.epochs or 50
    print(f"{arguments.members} members, {epochs} epochs, torch {torch.__version__}")
    compare(arguments.members, epochs, arguments.rounds)


if __name__ == "__main__":
    main()
