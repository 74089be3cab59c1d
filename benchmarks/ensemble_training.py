"""Deep ensembles: stacked members against a loop of networks, and against `jax.vmap`.

Run: python benchmarks/ensemble_training.py [--members M] [--epochs E] [--rounds R]
     python benchmarks/ensemble_training.py --optunet --data FOLDER [--members M] [--looped L]

32 MLPs 64-32-10 on scikit-learn's digits, Adam, batches of 128, 50 epochs, one thread. The loop
trains the same networks one after another with torch's fused Adam; the jitted step of `jax.vmap`
(where jax is installed) takes the whole ensemble at once, as ours does, whose gradient is run as
a graph, and once more compiled, as the command line does from `WORTH_COMPILING` chain-gradients on.
Each side makes the same number of steps; the first epoch, in which graphs are traced and compiled,
is timed apart. Sides take turns; medians over the rounds of the seconds of CPU are compared.

`--optunet` trains M convolutional networks of 392 weights on MNIST by the recipe that ships, for as
many epochs as that says, in W processes; and L of them (40 if not told) in a plain loop on one
thread, whose time a member is what is compared. Starting and tracing are in the time of ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.datasets import ROOT_VARIABLE
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides import Ensemble, PointEstimate, Training
from pyro_bnn.infer.predict import predict
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.nn import architectures

ROOT = Path(__file__).parent.parent
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
    """Time one training in seconds of CPU, which other work on the machine does not prolong."""
    start = time.process_time()
    train(epochs)
    return time.process_time() - start


def compare(members: int, epochs: int, rounds: int) -> None:
    """Print one line a side, and the ratios."""
    script = ModelScript.load(ROOT / "models" / "digits_mlp.py")
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


def one_by_one(x: torch.Tensor, y: torch.Tensor, members: int, training: Training) -> float:
    """Train OptuNets one after another with torch, as a plain loop does; return the seconds."""
    batch = training.batch_size or len(x)
    steps = len(x) // batch
    started = time.perf_counter()
    for member in range(members):
        torch.manual_seed(member)
        net = architectures.optunet()
        rate = training.learning_rate
        optimiser = torch.optim.SGD(net.parameters(), rate, 0.9, weight_decay=2e-4, fused=True)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, rate, total_steps=training.epochs * steps
        )
        for _ in range(training.epochs):
            order = torch.randperm(len(x))
            for rows in order[: steps * batch].split(batch):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimiser.step()
                cycle.step()
    return time.perf_counter() - started


@contextmanager
def watched_memory() -> Iterator[list[float]]:
    """Collect, every four seconds, what this process and its workers have in memory, in MB.

    To look takes some 60 ms, for which the processes are held up: twice a second costs them 8 %.
    Pages that they share, as those of torch's libraries, count once where the system says which
    they are (proportional set size, on Linux), and once a process elsewhere.
    """
    seen: list[float] = []
    ended = threading.Event()
    this = psutil.Process()

    def look() -> None:
        while not ended.wait(4.0):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                with suppress(psutil.Error):
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
            seen.append(total / 1e6)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def optunets(members: int, looped: int, epochs: int | None, workers: int, seed: int) -> None:
    """Train OptuNets by worker processes and in a loop; print the ratio and the peak memory."""
    changes = {"run.chains": members, "guide.workers": workers}
    changes |= {} if epochs is None else {"guide.epochs": epochs}
    recipe = Recipe.read(ROOT / "inference" / "study" / "optunet_mnist.toml", changes)
    assert recipe.guide is not None
    script = ModelScript.load(ROOT / "models" / "optunet_mnist.py")
    x, y = script.data.train.x, script.data.train.y
    torch.set_num_threads(workers)
    density = LogDensity(script.model, x, y)
    ensemble = recipe.guide.ensemble(density, members)
    with tempfile.TemporaryDirectory() as run, watched_memory() as memory:
        started = time.perf_counter()
        ensemble.fit(seed=seed, run_dir=run)
        ours = time.perf_counter() - started
    torch.set_num_threads(1)
    loop = one_by_one(x, y, looped, ensemble.training)
    test = script.data.test
    right = [
        float((predict(density, draw, test.x, test.y).mean[0].argmax(-1) == test.y).double().mean())
        for draw in in_turn(ensemble)
    ]
    each, alone = ours / members, loop / looped
    made = f"{ensemble.training.epochs} epochs of {len(x)} images"
    print(f"{script.data.name}, networks of {density.dim} weights, {made}")
    print(f"ours, {workers} processes: {members} in {ours:.1f} s, {each:.2f} s each, all included")
    print(
        f"loop, one thread: {looped} in {loop:.1f} s, {alone:.2f} s each: {alone / each:.2f} x ours"
    )
    print(f"{ensemble.batching}; {len(ensemble.failures)} trainings failed")
    print(f"memory of all processes together reached {max(memory):.0f} MB")
    middle, low, high = statistics.median(right), min(right), max(right)
    print(f"test accuracy of a member: median {middle:.2%}, from {low:.2%} to {high:.2%}")


def in_turn(ensemble: Ensemble) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the weights of each member ``(1, *shape)``."""
    for values in zip(*ensemble.sample_posterior(1).values(), strict=True):
        yield dict(zip(ensemble.density.sites, values, strict=True))


def main() -> None:
    """Compare the sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--epochs", type=int, help="50; 10 with --optunet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--optunet", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="of --optunet")
    parser.add_argument("--looped", type=int, default=40, help="members of the loop of --optunet")
    parser.add_argument("--data", help=f"folder that holds MNIST ({ROOT_VARIABLE})")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.optunet:
        if arguments.data is not None:
            os.environ[ROOT_VARIABLE] = arguments.data
        optunets(arguments.members, arguments.looped, arguments.epochs, arguments.workers, seed=0)
        return
    torch.set_num_threads(1)
    epochs = arguments.epochs or 50
    print(f"{arguments.members} members, {epochs} epochs, torch {torch.__version__}")
    compare(arguments.members, epochs, arguments.rounds)


if __name__ == "__main__":
    main()
