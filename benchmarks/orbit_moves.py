"""What orbit moves do to effective samples per second, of raw weights and of functions.

Run: python benchmarks/orbit_moves.py [--models digits_mlp diabetes_mlp] [--every 0 1 5]
     [--seeds S] [--warmup N] [--draws D] [--chains C] [--threads T]

HMC as in inference/hmc.toml, its gradient compiled before the clock starts, alone (0) or followed
every so many steps by `pyro_bnn.symmetry.OrbitMove`, as `[orbit] every` of a recipe has it. "all"
redraws scales, shifts, signs and permutations; "scales" leaves permutations and signs as they are,
so that what it gains is not the mere exchange of units. Bulk ESS and R-hat are medians over all
weights, and over the log predictive probabilities of the test rows; seconds are those of warm-up,
draws, moves and the gradients after them. One thread, some ten minutes by default.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import arviz_base
import arviz_stats
import numpy as np
import torch

from pyro_bnn import Data, LogDensity, UserError
from pyro_bnn.infer import MCMC
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import predict
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.symmetry import OrbitMove, discover

ROOT = Path(__file__).parent.parent
COLUMNS = (
    "model", "move", "every", "seed", "seconds", "in moves", "R-hat, weights", "ESS, weights",
    "ESS/s, weights", "R-hat, functions", "ESS, functions", "ESS/s, functions",
)  # fmt: skip


class Timed:
    """A move that counts the seconds it takes."""

    def __init__(self, move: OrbitMove) -> None:
        self.move = move
        self.seconds = 0.0

    def __call__(self, position: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Move flat positions ``(chain, dim)``."""
        start = time.perf_counter()
        moved = self.move(position, generator)
        self.seconds += time.perf_counter() - start
        return moved


def median_rhat_and_ess(values: np.ndarray) -> tuple[float, float]:
    """Medians over the last axis of ``(chain, draw, n)``."""
    tree = arviz_base.convert_to_datatree({"x": values.astype(np.float64)})
    rhat, ess = arviz_stats.rhat(tree)["x"], arviz_stats.ess(tree)["x"]
    return float(np.median(rhat)), float(np.median(ess))


def run(
    density: LogDensity,
    data: Data,
    move: Timed | None,
    every: int,
    seed: int,
    options: argparse.Namespace,
) -> tuple[list[str], float, float]:
    """Sample once; return the cells of a row and the two rates."""
    mcmc = MCMC(
        Recipe.read(ROOT / "inference" / "hmc.toml").kernel.kernel(density),
        options.draws,
        options.warmup,
        num_chains=options.chains,
        seed=seed,
        disable_progbar=True,
        move=move,
        move_every=max(1, every),
    )
    start = time.perf_counter()
    mcmc.run()
    seconds = time.perf_counter() - start
    grouped = mcmc.get_samples(group_by_chain=True)
    weights = torch.cat([value.flatten(2) for value in grouped.values() if value.ndim > 2], 2)
    found = predict(density, mcmc.get_samples(), data.test.x, data.test.y).log_predictive
    functions = found.unflatten(0, (options.chains, -1))
    spent = 0.0 if move is None else move.seconds
    cells, rates = [f"{seconds:.0f}", f"{100 * spent / seconds:.0f} %"], []
    for values in (weights, functions):
        rhat, ess = median_rhat_and_ess(values.numpy())
        rates.append(ess / seconds)
        cells += [f"{rhat:.3f}", f"{ess:,.0f}", f"{ess / seconds:.1f}"]
    return cells, rates[0], rates[1]


def main() -> None:
    """Run every kind of move on every model; print every run, then the gains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["digits_mlp", "diabetes_mlp"])
    parser.add_argument("--every", type=int, nargs="+", default=[0, 1, 5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=80)
    parser.add_argument("--draws", type=int, default=80)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.chains} chains of {options.warmup} + {options.draws}, medians of ESS\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    gains: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for model in options.models:
        script = ModelScript.load(ROOT / "models" / f"{model}.py")
        data = script.data
        density = LogDensity(script.model, data.train.x, data.train.y).compiled()
        start = density.initial_position(options.chains, torch.Generator().manual_seed(0))
        density.value_and_grad(start)
        group = discover(density)
        cases = [(0, "none")] if 0 in options.every else []
        cases += [(every, kind) for every in options.every if every for kind in ("all", "scales")]
        # Seeds outside, moves inside: what disturbs the machine disturbs all of them.
        for seed in range(options.seeds):
            for every, kind in cases:
                move = None
                if every:
                    try:
                        move = Timed(OrbitMove(density, group, permute=kind == "all"))
                    except UserError:
                        continue  # a network without scales has signs and permutations only
                cells, weights, functions = run(density, data, move, every, seed, options)
                label = kind if every == 0 else f"{kind}, every {every}"
                gains.setdefault((model, label), []).append((weights, functions))
                print(f"| {' | '.join([model, kind, str(every), str(seed), *cells])} |", flush=True)
    print("\n| model | move | ESS/s, weights | ESS/s, functions |\n|---|---|---|---|")
    for (model, label), rates in gains.items():
        weights, functions = np.median(rates, axis=0)
        print(f"| {model} | {label} | {weights:.1f} | {functions:.1f} |")


if __name__ == "__main__":
    main()
