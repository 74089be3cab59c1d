"""Chain-gradients per effective sample: our HMC, NUTS and MCLMC against BlackJAX's, same settings.

Run: python benchmarks/sampler_efficiency.py [--share F] [--seeds S] [--targets gaussian network]
     [--kernels HMC NUTS MCLMC]

Nothing is adapted: step size, number of steps and decoherence length are those of the table below,
the mass matrix is the identity, every kernel starts from the same positions, and a fifth of the
draws is dropped. The ESS is a harmonic mean over x and x^2 of every coordinate, which is ruled by
the slowest ones and less noisy than the smallest: of the 100 coordinates of a Gaussian of condition
number 100, or of the outputs of a 5-8-1 tanh network at 20 inputs, whose weights would say more of
modes than of samplers. NUTS counts the leapfrog steps of each chain's own tree, on both sides, and
not those for which a chain waits. The error of a ratio is that of its logarithm's mean over seeds;
at the default size it is meant to be below 5 %. `--share` makes all runs shorter. One
thread, some ten minutes of processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import arviz_base
import arviz_stats
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.func import grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_bnn.infer import HMC, MCLMC, NUTS
from pyro_bnn.infer.kernels.kernel import Kernel

DRAWS = {
    "gaussian": {"HMC": 12000, "NUTS": 400, "MCLMC": 6000},
    "network": {"HMC": 1500, "NUTS": 150, "MCLMC": 6000},
}
"""Draws of a chain: what a draw costs, and how far it goes, differs from kernel to kernel."""
KERNELS = ["HMC", "NUTS", "MCLMC"]
CHAINS = 32
HIDDEN, INPUTS, ROWS = 8, 5, 60
SETTINGS = {
    "gaussian": {"step_size": 0.5, "num_steps": 5, "unit_speed_step": 8.0, "length": 58.0},
    "network": {"step_size": 0.025, "num_steps": 20, "unit_speed_step": 0.7, "length": 7.5},
}


class Target(NamedTuple):
    """One density in torch and in JAX, where to start, and what to judge it by."""

    torch: Callable[[torch.Tensor], torch.Tensor]
    jax: Callable[[jax.Array], jax.Array]
    start: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]


class Density:
    """The gradient of a torch potential for a batch of chains, traced once."""

    def __init__(
        self, potential: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor
    ) -> None:
        self._gradient = make_fx(vmap(grad_and_value(potential)))(start)

    def value_and_grad(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potential energies ``(chain,)`` and gradients ``(chain, dim)``."""
        gradient, value = self._gradient(position)
        return value, gradient


def gaussian() -> Target:
    """Return a Gaussian of 100 dimensions, variances from 1 to 100."""
    variances = np.logspace(0, 2, 100).astype(np.float32)
    start = np.sqrt(variances) * np.random.default_rng(0).normal(size=(CHAINS, 100))
    return Target(
        lambda x: 0.5 * (x**2 / torch.from_numpy(variances)).sum(),
        lambda x: -0.5 * (x**2 / variances).sum(),
        start.astype(np.float32),
        lambda x: x,
    )


def network() -> Target:
    """Return a 5-8-1 tanh network with normal priors, on 60 rows with noise 0.3."""
    random = np.random.default_rng(1)
    x = random.normal(size=(ROWS, INPUTS)).astype(np.float32)
    y = (np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * random.normal(size=ROWS)).astype(np.float32)
    queries = random.normal(size=(20, INPUTS)).astype(np.float32)
    dim = HIDDEN * (INPUTS + 2) + 1

    def output(weights, inputs, library):
        first = weights[: HIDDEN * INPUTS].reshape(HIDDEN, INPUTS)
        bias, last = weights[HIDDEN * INPUTS : -1].reshape(2, HIDDEN)
        return library.tanh(inputs @ first.T + bias) @ last + weights[-1]

    def torch_potential(weights: torch.Tensor) -> torch.Tensor:
        errors = (torch.from_numpy(y) - output(weights, torch.from_numpy(x), torch)) / 0.3
        return 0.5 * ((errors**2).sum() + (weights**2).sum())

    def jax_log_density(weights: jax.Array) -> jax.Array:
        errors = (y - output(weights, x, jnp)) / 0.3
        return -0.5 * ((errors**2).sum() + (weights**2).sum())

    def function(draws: np.ndarray) -> np.ndarray:
        of_all = jax.vmap(jax.vmap(lambda weights: output(weights, queries, jnp)))
        return np.asarray(of_all(draws))

    start = random.normal(size=(CHAINS, dim)).astype(np.float32)
    return Target(torch_potential, jax_log_density, start, function)


def ours(kernel: Kernel, target: Target, draws: int, seed: int) -> tuple[np.ndarray, float]:
    """Draw without adaptation; return ``(chain, draw, dim)`` and gradients of a chain and draw."""
    start, generator = torch.from_numpy(target.start), torch.Generator().manual_seed(seed)
    density = Density(target.torch, start)
    state = kernel.init(start, density, generator)
    drawn, gradients = [], 0.0
    for _ in range(draws):
        state, info = kernel.step(state, density, generator)
        drawn.append(state.position)
        steps = float(info.stats["n_steps"].float().mean())
        gradients += 2 * steps if isinstance(kernel, MCLMC) else steps
    return torch.stack(drawn, 1).numpy(), gradients / draws


def blackjax_draws(
    name: str, settings: dict[str, float], target: Target, draws: int, seed: int
) -> tuple[np.ndarray, float]:
    """Draw the same by BlackJAX, all chains under vmap."""
    unit = jnp.ones(target.start.shape[1])
    if name == "HMC":
        algorithm = blackjax.hmc(
            target.jax, settings["step_size"], unit, int(settings["num_steps"])
        )
    elif name == "NUTS":
        algorithm = blackjax.nuts(target.jax, settings["step_size"], unit)
    else:
        algorithm = blackjax.mclmc(
            target.jax,
            L=settings["length"],
            step_size=settings["unit_speed_step"],
            inverse_mass_matrix=unit,
        )

    def chain(key: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, rest = jax.random.split(key)

        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (state.position, getattr(info, "num_integration_steps", 2))

        _, found = jax.lax.scan(
            step, algorithm.init(position, first), jax.random.split(rest, draws)
        )
        return found

    keys = jax.random.split(jax.random.PRNGKey(seed), CHAINS)
    positions, steps = jax.jit(jax.vmap(chain))(keys, target.start)
    return np.asarray(positions), float(jnp.mean(steps))


def typical_ess(target: Target, drawn: np.ndarray) -> float:
    """Harmonic mean of the ESS of x and x^2, a fifth of the draws dropped."""
    values = target.function(drawn[:, drawn.shape[1] // 5 :]).astype(np.float64)
    centred = values - values.mean((0, 1))
    tree = arviz_base.convert_to_datatree({"x": centred, "square": centred**2})
    ess = arviz_stats.ess(tree, method="mean")
    return float(1 / np.mean([1 / ess[name].to_numpy() for name in ("x", "square")]))


def compare(
    label: str, kernel: Kernel, target: Target, name: str, arguments: argparse.Namespace
) -> str:
    """Return the row of one kernel on one target."""
    draws = round(arguments.share * DRAWS[name][label])
    costs, rhat, began = [], 0.0, time.perf_counter()
    for seed in range(arguments.seeds):
        pair = []
        for drawn, gradients in (
            ours(kernel, target, draws, seed),
            blackjax_draws(label, SETTINGS[name], target, draws, seed),
        ):
            kept = CHAINS * (draws - draws // 5)
            pair.append(gradients * kept / typical_ess(target, drawn))
            values = target.function(drawn[:, draws // 5 :]).astype(np.float64)
            tree = arviz_base.convert_to_datatree({"x": values})
            rhat = max(rhat, float(arviz_stats.rhat(tree)["x"].max()))
        costs.append(pair)
    logarithms = np.log(costs)
    own, other = np.exp(logarithms.mean(0))
    errors = logarithms[:, 0] - logarithms[:, 1]
    spread = errors.std(ddof=1) / len(errors) ** 0.5 if len(errors) > 1 else np.nan
    ratio = own / other
    return (
        f"| {name} | {label} | {draws:,} | {own:.1f} | {other:.1f} "
        f"| {ratio:.2f} ± {ratio * spread:.2f} | {rhat:.3f} | {time.perf_counter() - began:.0f} |"
    )


def main() -> None:
    """Compare the three kernels on the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the draws of the default size")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--kernels", nargs="+", default=KERNELS, choices=KERNELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{CHAINS} chains, {arguments.seeds} seeds; geometric means over seeds; largest R-hat of "
        "all runs\n"
    )
    print(
        "| target | kernel | draws | gradients per effective sample, ours | BlackJAX | ratio "
        "| R-hat | seconds |"
    )
    print(f"|{'---|' * 8}")
    for name in arguments.targets:
        target, settings = {"gaussian": gaussian, "network": network}[name](), SETTINGS[name]
        kernels: dict[str, Kernel] = {
            "HMC": HMC(None, settings["step_size"], num_steps=int(settings["num_steps"])),
            "NUTS": NUTS(None, settings["step_size"]),
            "MCLMC": MCLMC(None, settings["unit_speed_step"], settings["length"], steps_per_draw=1),
        }
        for label in arguments.kernels:
            print(compare(label, kernels[label], target, name, arguments), flush=True)


if __name__ == "__main__":
    main()
