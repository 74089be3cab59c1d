"""Gradients per second: `LogDensity` against Pyro and against a density written in JAX.

Run: python benchmarks/gradient_vs_jax.py [--threads N] [--rounds R] [--mnist DIR] [--blocks B ...]
[--profile]

Three densities, float32, standard normal priors on all weights: a 13-16-16-1 tanh regression on
500 synthetic rows, a 64-32-10 tanh classifier on the 1,797 digits of scikit-learn, and a
convolutional classifier of 792 weights on images of 28 x 28 (MNIST from `--mnist`, a folder of
idx files; scikit-learn's digits enlarged without it). From one Pyro model each: `LogDensity` on
16 chains, eager and compiled, and Pyro's potential and gradient one chain at a time, as
`pyro.infer.MCMC` calls them. Against them, `jax.jit(vmap(value_and_grad))` of the same density,
written in JAX by hand. PyTorch and JAX run in two processes on the same processors, one at a
time, in turn; the medians over the rounds are compared. Gradients have to agree first.
The convolutional network is compiled with `--compile-all` only: it takes long.

`--blocks 1 4 8` adds the eager gradient of all chains in blocks of so many, one block after the
other, which keeps activations in cache for the price of more calls. `--profile` prints the
operators that take the largest shares of one eager gradient.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PEAK = 1024


class Problem(NamedTuple):
    """Data, and the shapes of the weights in the order of a flat position."""

    x: np.ndarray
    y: np.ndarray
    shapes: list[tuple[int, ...]]


def problem(name: str, rows: int, mnist: Path | None) -> Problem:
    """Return the data of a problem, float32."""
    random = np.random.default_rng(0)
    if name == "regression":
        x = random.normal(size=(500, 13))
        y = np.sin(x[:, 0]) + 0.3 * random.normal(size=500)
        shapes = [(16, 13), (16,), (16, 16), (16,), (1, 16), (1,)]
        return Problem(x.astype(np.float32), y.astype(np.float32), shapes)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    if name == "digits":
        shapes = [(32, 64), (32,), (10, 32), (10,)]
        return Problem((images / 16).astype(np.float32), labels, shapes)
    if mnist is None:
        large = np.kron(images.reshape(-1, 8, 8) / 16, np.ones((3, 3)))
        large = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    else:
        large = idx(mnist, "train-images-idx3-ubyte") / 255
        labels = idx(mnist, "train-labels-idx1-ubyte").astype(np.int64)
    shapes = [(4, 1, 3, 3), (4,), (6, 4, 3, 3), (6,), (8, 6, 3, 3), (8,), (10, 8), (10,)]
    return Problem(large[:rows, None].astype(np.float32), labels[:rows], shapes)


def idx(folder: Path, name: str) -> np.ndarray:
    """Read one file of the MNIST format, compressed or not."""
    plain = folder / name
    packed = folder / f"{name}.gz"
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def seconds(call: Callable[[], object], budget: float) -> float:
    """Time one call: the mean over as many as fit the budget."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < budget:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def torch_worker(pipe: Connection, name: str, options: argparse.Namespace) -> None:
    """Serve the PyTorch side: gradients and timings of each method by name."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer.mcmc.util import initialize_model
    from pyro.ops.integrator import potential_grad
    from torch import nn

    from pyro_bnn import LogDensity, lift
    from pyro_bnn.allocator import keep_freed_memory
    from pyro_bnn.nn import Normal

    torch.set_num_threads(options.threads)
    keep_freed_memory()
    data = problem(name, options.rows, options.mnist)
    x, y = torch.tensor(data.x), torch.tensor(data.y)
    pool, relu = nn.MaxPool2d, nn.ReLU
    net = {
        "regression": lambda: nn.Sequential(
            nn.Linear(13, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
        ),
        "digits": lambda: nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)),
        "convolutional": lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3), relu(), pool(2), nn.Conv2d(4, 6, 3), relu(), pool(2)),
            *(nn.Conv2d(6, 8, 3), relu(), pool(3), nn.Flatten(), nn.Linear(8, 10)),
        ),
    }[name]()
    bnn = lift(net, prior=Normal(scale=1.0))

    def model(x: Any, y: Any = None) -> None:
        with pyro.plate("data", x.shape[0]):
            if name == "regression":
                pyro.sample("y", dist.Normal(bnn(x).squeeze(-1), 0.3), obs=y)
            else:
                pyro.sample("y", dist.Categorical(logits=bnn(x)), obs=y)

    position = torch.tensor(positions(data, options.chains))
    density = LogDensity(model, x, y)
    methods: dict[str, Callable[[], Any]] = {"eager": lambda: density.value_and_grad(position)}
    paths = {}
    for block in options.blocks:
        methods[f"blocks {block}"] = blocks(density, position, block)
    if name != "convolutional" or options.compile_all:
        compiled = density.compiled()
        methods["compiled"] = lambda: compiled.value_and_grad(position)
    pyro.enable_validation(False)
    _, potential, _, _ = initialize_model(model, model_args=(x, y))
    one = {site: value[0] for site, value in density.unflatten(position).items()}
    methods["pyro"] = lambda: potential_grad(potential, one)
    left, right = torch.rand(2, PEAK, PEAK)
    product = torch.ops.mkldnn._linear_pointwise
    methods["peak mm"] = lambda: left @ right
    methods["peak onednn"] = lambda: product(left, right, None, "none", [], "")

    start = time.perf_counter()
    gradients = {}
    for key in ("eager", "compiled"):
        if key in methods:
            began = time.perf_counter()
            value, gradient = methods[key]()
            gradients[key] = (value.numpy(), gradient.numpy())
            chosen = density if key == "eager" else compiled
            paths[key] = f"{chosen.gradient_path}, {time.perf_counter() - began:.1f} s to the first"
    if options.profile:
        paths["profile"] = shares(methods["eager"])
    pipe.send((gradients, paths, time.perf_counter() - start))
    serve(pipe, methods)


def blocks(density: Any, position: Any, size: int) -> Callable[[], Any]:
    """Return the gradient of all chains, a block of them at a time."""
    parts = position.split(size)
    return lambda: [density.value_and_grad(part) for part in parts]


def shares(call: Callable[[], Any]) -> str:
    """Say which operators one call spends its time in, by themselves."""
    from torch.profiler import ProfilerActivity, profile

    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return "\n".join(
        f"    {event.self_cpu_time_total / total:6.1%}  {event.key} ({event.count} calls)"
        for event in events[:12]
    )


def jax_worker(pipe: Connection, name: str, options: argparse.Namespace) -> None:
    """Serve the JAX side."""
    if options.threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags
    import jax
    import jax.numpy as jnp

    data = problem(name, options.rows, options.mnist)
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    bounds = np.cumsum([int(np.prod(shape)) for shape in data.shapes])[:-1]
    log_two_pi = float(np.log(2 * np.pi))
    images = jnp.transpose(x, (0, 2, 3, 1)) if x.ndim == 4 else x

    def convolve(hidden: Any, weight: Any, bias: Any, size: int) -> Any:
        kernel = jnp.transpose(weight, (2, 3, 1, 0))
        layout = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(
            hidden, kernel, (1, 1), "VALID", dimension_numbers=layout
        )
        window = (1, size, size, 1)
        hidden = jax.nn.relu(hidden + bias)
        return jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, window, window, "VALID")

    def potential(z: Any) -> Any:
        parts = jnp.split(z, bounds)
        weights = [part.reshape(shape) for part, shape in zip(parts, data.shapes, strict=True)]
        hidden = images
        if name == "convolutional":
            for layer, size in enumerate((2, 2, 3)):
                hidden = convolve(hidden, weights[2 * layer], weights[2 * layer + 1], size)
            hidden = hidden.reshape(len(hidden), -1) @ weights[6].T + weights[7]
        else:
            for layer in range(0, len(weights), 2):
                hidden = hidden @ weights[layer].T + weights[layer + 1]
                hidden = jnp.tanh(hidden) if layer + 2 < len(weights) else hidden
        prior = 0.5 * jnp.sum(z**2) + 0.5 * log_two_pi * z.size
        if name == "regression":
            error = (y - hidden[:, 0]) / 0.3
            terms = 0.5 * error**2 + jnp.log(0.3) + 0.5 * log_two_pi
        else:
            chosen = jnp.take_along_axis(jax.nn.log_softmax(hidden), y[:, None], axis=1)
            terms = -chosen[:, 0]
        return prior + jnp.sum(terms)

    position = jnp.asarray(positions(data, options.chains))
    function = jax.jit(jax.vmap(jax.value_and_grad(potential)))
    start = time.perf_counter()
    value, gradient = jax.block_until_ready(function(position))
    taken = time.perf_counter() - start
    pipe.send(({"jax": (np.asarray(value), np.asarray(gradient))}, {"jax": "jit"}, taken))
    left, right = jnp.asarray(np.random.default_rng(0).random((2, PEAK, PEAK), np.float32))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(left, right))
    serve(
        pipe,
        {
            "jax": lambda: jax.block_until_ready(function(position)),
            "peak xla": lambda: jax.block_until_ready(multiply(left, right)),
        },
    )


def positions(data: Problem, chains: int) -> np.ndarray:
    """Positions ``(chain, dim)`` at which gradients are neither zero nor saturated."""
    size = sum(int(np.prod(shape)) for shape in data.shapes)
    return 0.3 * np.random.default_rng(1).normal(size=(chains, size)).astype(np.float32)


def serve(pipe: Connection, methods: dict[str, Callable[[], Any]]) -> None:
    """Time the method that is asked for until asked for none."""
    pipe.send(list(methods))
    while request := pipe.recv():
        name, budget = request
        pipe.send(seconds(methods[name], budget))


def flop(name: str, data: Problem) -> float | None:
    """Floating-point operations of the matrix products of one chain's gradient."""
    if name == "convolutional":
        return None
    first, *rest = [int(np.prod(shape)) for shape in data.shapes if len(shape) == 2]
    return 2.0 * len(data.x) * (2 * first + 3 * sum(rest))


def compare(name: str, options: argparse.Namespace) -> None:
    """Print the rates of one problem."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, gradients, notes, owner = [], [], {}, {}, {}
    for worker in (torch_worker, jax_worker):
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, name, options), daemon=True)
        process.start()
        found, paths, _ = ours.recv()
        gradients.update(found)
        notes.update(paths)
        owner.update(dict.fromkeys(ours.recv(), ours))
        pipes.append(ours)
        processes.append(process)
    data = problem(name, options.rows, options.mnist)
    expected = gradients["jax"]
    for key, (value, gradient) in gradients.items():
        error = np.abs(gradient - expected[1]).max(1) / np.abs(expected[1]).max(1)
        values = np.abs(value / expected[0] - 1)
        if not (error.max() < 2e-5 and values.max() < 1e-5):
            raise SystemExit(f"{name}, {key}: gradients differ by {error.max():.1e} from JAX's")

    times: dict[str, list[float]] = {key: [] for key in owner}
    for _ in range(options.rounds):
        for key, pipe in owner.items():
            pipe.send((key, options.budget))
            times[key].append(pipe.recv())
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()

    medians = {key: statistics.median(found) for key, found in times.items()}
    peak = 2 * PEAK**3 / min(medians[key] for key in medians if key.startswith("peak"))
    rates = {
        key: (1 if key == "pyro" else options.chains) / medians[key]
        for key in ("pyro", "jax", "eager", *medians)
        if key in medians and not key.startswith("peak")
    }
    size = sum(int(np.prod(shape)) for shape in data.shapes)
    print(f"\n{name}: {size:,} weights, {len(data.x):,} rows; peak {peak / 1e9:.0f} GFLOP/s")
    work = flop(name, data)
    for key, rate in rates.items():
        share = "" if work is None else f"  {100 * rate * work / peak:5.1f} % of peak"
        print(
            f"  {key:9} {rate:9,.0f} /s  {rate / rates['pyro']:6.1f} x Pyro  "
            f"{rate / rates['jax']:5.2f} x JAX{share}  {notes.get(key, '')}",
            flush=True,
        )
    if "profile" in notes:
        print(f"  one eager gradient by operator:\n{notes['profile']}", flush=True)


def main() -> None:
    """Compare the three problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds a method and round")
    parser.add_argument("--rows", type=int, default=512, help="images of the third problem")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files")
    parser.add_argument("--blocks", type=int, nargs="*", default=[], help="chains of a block")
    parser.add_argument("--compile-all", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", choices=["regression", "digits", "convolutional"])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(free[-options.threads :]))
    print(f"{options.chains} chains, {options.threads} threads, chain-gradients per second")
    for name in ("regression", "digits", "convolutional"):
        if options.only in (None, name):
            compare(name, options)


if __name__ == "__main__":
    main()
