"""Chain-gradients per effective sample: our HMC, NUTS and MCLMC against BlackJAX's, same settings.

Run: python benchmarks/sampler_efficiency.py [--draws D] [--seeds S] [--targets gaussian network]

Nothing is adapted: step size, number of steps and decoherence length are those of the table below,
the mass matrix is the identity, every kernel starts from the same positions, and a tenth of the
draws is dropped. ESS is the smallest over x and x^2 of every coordinate: of the 100 coordinates of
a Gaussian of condition number 100, or of the outputs of a 5-8-1 tanh network at 20 inputs, whose
weights would say more of modes than of samplers. NUTS counts the leapfrog steps of each chain's
own tree, on both sides, and not those for which a chain waits.
"""

from __future__ import annotations

import argparse
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

from pyro_bnn.infer import HMC, MCLMC, NUTS
from pyro_bnn.infer.kernels.kernel import Kernel

CHAINS = 16
HIDDEN, INPUTS, ROWS = 8, 5, 60
SETTINGS = {
    "gaussian": {"step_size": 0.5, "num_steps": 4, "unit_speed_step": 8.0, "length": 58.0},
    "network": {"step_size": 0.05, "num_steps": 20, "unit_speed_step": 0.7, "length": 7.5},
}


class Target(NamedTuple):
    """One density in torch and in JAX, where to start, and what to judge it by."""

    torch: Callable[[torch.Tensor], torch.Tensor]
    jax: Callable[[jax.Array], jax.Array]
    start: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]


class Density:
    """The gradient of a torch potential for a batch of chains."""

    def __init__(self, potential: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._gradient = vmap(grad_and_value(potential))

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
    density, generator = Density(target.torch), torch.Generator().manual_seed(seed)
    state = kernel.init(torch.from_numpy(target.start), density, generator)
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


def least_ess(target: Target, drawn: np.ndarray) -> float:
    """Smallest ESS of x and x^2, a tenth of the draws dropped."""
    values = target.function(drawn[:, drawn.shape[1] // 10 :]).astype(np.float64)
    centred = values - values.mean((0, 1))
    tree = arviz_base.convert_to_datatree({"x": centred, "square": centred**2})
    ess = arviz_stats.ess(tree, method="mean")
    return min(float(ess[name].min()) for name in ("x", "square"))


def main() -> None:
    """Compare the three kernels on the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{CHAINS} chains, {arguments.draws} draws (MCLMC ten times as many), medians of seeds\n")
    print("| target | kernel | gradients per effective sample, ours | BlackJAX | ratio |")
    print("|---|---|---|---|---|")
    for name in arguments.targets:
        target, settings = {"gaussian": gaussian, "network": network}[name](), SETTINGS[name]
        kernels: dict[str, Kernel] = {
            "HMC": HMC(None, settings["step_size"], num_steps=int(settings["num_steps"])),
            "NUTS": NUTS(None, settings["step_size"]),
            "MCLMC": MCLMC(None, settings["unit_speed_step"], settings["length"], steps_per_draw=1),
        }
        for label, kernel in kernels.items():
            draws = arguments.draws * (10 if label == "MCLMC" else 1)
            costs = []
            for seed in range(arguments.seeds):
                pair = []
                for drawn, gradients in (
                    ours(kernel, target, draws, seed),
                    blackjax_draws(label, settings, target, draws, seed),
                ):
                    kept = CHAINS * (draws - draws // 10)
                    pair.append(gradients * kept / least_ess(target, drawn))
                costs.append(pair)
            own, other = np.median(costs, axis=0)
            print(f"| {name} | {label} | {own:.1f} | {other:.1f} | {own / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
