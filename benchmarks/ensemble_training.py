"""Deep ensembles: stacked members against a loop of networks, and against `jax.vmap`.

Run: python benchmarks/ensemble_training.py [--members M] [--epochs E] [--rounds R] [--optunet]

32 MLPs 64-32-10 on scikit-learn's digits, Adam, batches of 128, 50 epochs, one thread. The loop
trains the same networks one after another with torch's fused Adam; the jitted step of `jax.vmap`
(where jax is installed) takes the whole ensemble at once, as ours does. Each side makes the same
number of steps; the first epoch, in which graphs are traced and compiled, is timed apart. Sides
take turns; medians over the rounds are compared. `--optunet` trains 1,000 networks of 392 weights
(two convolutions, one linear layer) on 28 x 28 images for 10 epochs and prints the peak memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.infer.allocator import keep_freed_memory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.nn import Normal, lift

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
    sides = {"stacked": stacked(LogDensity(script.model, x, y), members)}
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
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"{name:22} {median:7.2f} s  {median / steps * 1e6:7.1f} us a step and member  "
            f"{median / ours:5.2f} x the time of ours  first epoch {first[name]:5.2f} s"
        )


def optunet(members: int, epochs: int, threads: int) -> None:
    """Train an ensemble of small convolutional networks; print its time and the peak memory."""
    torch.set_num_threads(threads)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 4, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 3),
        nn.Conv2d(2, 10, 5, groups=2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 10),
    )
    bnn = lift(net, prior=Normal(scale="fan_in", gain=2.0))

    def model(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        with pyro.plate("data", len(x)):
            drawn: torch.Tensor = pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)
            return drawn

    x = torch.randn(8000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8000) % 10
    density = LogDensity(model, x, y)
    train = stacked(density, members)
    elapsed = seconds(train, epochs)
    steps = members * epochs * (len(x) // BATCH)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"OptuNet, {density.dim} weights, {members} members, {epochs} epochs, {threads} threads: "
        f"{elapsed:.1f} s, {elapsed / steps * 1e3:.3f} ms a step and member, peak {peak:.0f} MB"
    )


def main() -> None:
    """Compare the sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--optunet", action="store_true")
    parser.add_argument("--threads", type=int, default=2, help="of --optunet")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.optunet:
        optunet(1000 if arguments.members == 32 else arguments.members, 10, arguments.threads)
        return
    torch.set_num_threads(1)
    print(f"{arguments.members} members, {arguments.epochs} epochs, torch {torch.__version__}")
    compare(arguments.members, arguments.epochs, arguments.rounds)


if __name__ == "__main__":
    main()
