"""Function-space ESS per second: our kernels against Pyro, NumPyro and BlackJAX, same networks.

Run: python benchmarks/samplers.py [--models diabetes_mlp digits_mlp] [--kernels hmc chees ...]
     [--seeds S] [--budget SECONDS ...] [--nuts-budget SECONDS] [--nuts-seeds S] [--warmup N]
     [--chains C] [--threads T]

Kernels are our recipes (hmc, nuts, chees, mclmc, adjusted-mclmc, taken from inference/*.toml), each
with its gradient eager or, under its name and "-compiled", compiled, and the peers pyro-nuts,
numpyro-nuts and blackjax-mclmc. By default it is chees-compiled, the default recipe as it runs
where it is long enough to be compiled, beside the three peers: some 18 minutes. Each run warms up
(its recipe's steps, or `--warmup` of them; peers take 150 or the same number, BlackJAX ten
integrator steps for each) and then draws until the budget, one for all models or one each, is
spent. Bulk ESS and R-hat are those of the log predictive probabilities of all test rows; seconds
have warm-up in them and, for our eager runs, the tracing; what JAX or we compile stands beside
them. A run counts as converged if its median R-hat is at most 1.01. Gradients are those that the
batch computed, of each chain, with the waiting of NUTS.

The NUTS of the peers has `--nuts-seeds` seeds and `--nuts-budget` seconds. Pyro runs one chain: its
ESS per second is that of one chain and not extrapolated, its R-hat is that of its halves. The row
of a sampler that has fewer than eight draws a chain gives the steps and gradients that it made, and
an upper bound of its ESS per second: as if every step of every chain had been an independent draw.

The last table rests the choice of the default kernel on the runs: of the exact kernels that
converged in most runs on every model, that with the largest geometric mean of ESS per second.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import Any

import arviz_base
import arviz_stats
import numpy as np
import torch
from sampler_run import LEAST_DRAWS, Run, Unfinished

from pyro_bnn import Data, LogDensity
from pyro_bnn.infer import MCMC
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import predict
from pyro_bnn.infer.recipe import Recipe

ROOT = Path(__file__).parent.parent
COMPILED = "-compiled"
RECIPES = ("hmc", "nuts", "chees", "mclmc", "adjusted-mclmc")
OURS = (*RECIPES, *(f"{name}{COMPILED}" for name in RECIPES))
EXACT = ("hmc", "nuts", "chees", "adjusted-mclmc")
PEERS = ("pyro-nuts", "numpyro-nuts", "blackjax-mclmc")
DEFAULT = (f"chees{COMPILED}", *PEERS)
COLUMNS = (
    "model", "kernel", "seed", "seconds", "compiling", "draws", "gradients a chain", "R-hat",
    "ESS", "ESS/s", "ESS per 1,000 chain-gradients", "converged",
)  # fmt: skip


def ours(
    name: str,
    density: LogDensity,
    data: Data,
    options: argparse.Namespace,
    seed: int,
    budget: float,
) -> Run | Unfinished:
    """Run a recipe until the budget is spent."""
    recipe = Recipe.read(ROOT / "inference" / f"{name.removesuffix(COMPILED)}.toml")
    warmup = recipe.run.warmup if options.warmup is None else options.warmup
    start = time.perf_counter()
    # A density of its own, so that tracing is part of the run.
    fresh = LogDensity(density.model, *density.args, **density.kwargs)
    compiling = 0.0
    if name.endswith(COMPILED):
        fresh = fresh.compiled()
        generator = torch.Generator().manual_seed(seed)
        fresh.value_and_grad(fresh.initial_position(options.chains, generator))
        compiling = time.perf_counter() - start
        start = time.perf_counter()
    spent: dict[str, float] = {}

    def watch(kernel: Any, params: Any, stage: str, count: int) -> None:
        if stage == "Warmup":
            spent["warmup"] = mcmc.progress.gradients
        if time.perf_counter() - start > budget:
            raise KeyboardInterrupt

    mcmc = MCMC(
        recipe.kernel.kernel(fresh),
        options.most_draws,
        warmup,
        num_chains=options.chains,
        seed=seed,
        hook_fn=watch,
        disable_progbar=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        mcmc.run()
    seconds = time.perf_counter() - start
    progress = mcmc.progress
    if progress.draws < LEAST_DRAWS:
        steps = progress.warmup + progress.draws
        return Unfinished(seconds, compiling, steps, warmup, options.chains, progress.gradients)
    found = predict(fresh, mcmc.get_samples(), data.test.x, data.test.y).log_predictive
    values = found.unflatten(0, (options.chains, -1)).numpy()
    return Run(values, seconds, compiling, progress.gradients, spent.get("warmup", 0.0))


def peer(
    name: str,
    model: str,
    density: LogDensity,
    data: Data,
    options: argparse.Namespace,
    seed: int,
    budget: float,
) -> Run | Unfinished:
    """Run a peer for its budget."""
    import sampler_peers

    warmup = 150 if options.warmup is None else options.warmup
    if name == "pyro-nuts":
        return sampler_peers.pyro_nuts(density, data, warmup, seed, options.nuts_budget)
    if name == "numpyro-nuts":
        return sampler_peers.numpyro_nuts(
            model, data, options.chains, warmup, seed, options.nuts_budget
        )
    return sampler_peers.blackjax_mclmc(model, data, options.chains, warmup, seed, budget)


def judge(run: Run) -> dict[str, np.ndarray]:
    """R-hat and bulk ESS of every test row."""
    values = run.log_predictive.astype(np.float64)
    tree = halves = arviz_base.convert_to_datatree({"f": values})
    if len(values) == 1:
        half = values.shape[1] // 2
        both = np.concatenate([values[:, :half], values[:, -half:]])
        halves = arviz_base.convert_to_datatree({"f": both})
    return {
        "rhat": arviz_stats.rhat(halves)["f"].to_numpy(),
        "ess": arviz_stats.ess(tree)["f"].to_numpy(),
    }


def line(model: str, kernel: str, seed: int, run: Run) -> tuple[str, float, bool]:
    """One row of the table, its median ESS per second, and whether it has converged."""
    found = judge(run)
    chains, draws = run.log_predictive.shape[:2]
    rhat, ess = found["rhat"], found["ess"]
    rate = np.array([np.median(ess), ess.min()])
    per_gradient = 1000 * rate / (chains * run.gradients)
    converged = bool(np.median(rhat) <= 1.01)
    cells = [
        model,
        kernel,
        str(seed),
        f"{run.seconds:.0f}",
        f"{run.compiling:.0f}",
        str(draws),
        f"{run.gradients:,.0f}",
        f"{np.median(rhat):.3f} / {rhat.max():.3f}",
        f"{rate[0]:,.0f} / {rate[1]:,.0f}",
        f"{rate[0] / run.seconds:.1f} / {rate[1] / run.seconds:.1f}",
        f"{per_gradient[0]:.1f} / {per_gradient[1]:.1f}",
        "yes" if converged else "no",
    ]
    return f"| {' | '.join(cells)} |", float(rate[0] / run.seconds), converged


def unfinished_line(model: str, kernel: str, seed: int, run: Unfinished) -> str:
    """One row of a sampler whose budget was spent in warm-up."""
    cells = [
        model,
        kernel,
        str(seed),
        f"{run.seconds:.0f}",
        f"{run.compiling:.0f}",
        f"too few: {run.steps} steps, warm-up has {run.warmup}",
        f"{run.gradients:,.0f}",
        "",
        "",
        f"at most {run.most:.1f}",
        "",
        "no",
    ]
    return f"| {' | '.join(cells)} |"


def choice(rates: dict[tuple[str, str], list[tuple[float, bool]]], models: list[str]) -> str:
    """Say which exact kernel the runs recommend, and why."""
    means = {}
    for kernel in (*EXACT, *(f"{name}{COMPILED}" for name in EXACT)):
        found = [rates.get((model, kernel), []) for model in models]
        if all(runs and np.mean([converged for _, converged in runs]) > 0.5 for runs in found):
            medians = [np.median([rate for rate, _ in runs]) for runs in found]
            means[kernel] = float(np.exp(np.mean(np.log(medians))))
    if not means:
        return "No exact kernel converged in most runs on every model."
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    told = ", ".join(f"{kernel} {means[kernel]:.1f}" for kernel in ranked)
    return f"Exact kernels that converged, geometric mean of ESS/s over models: {told}."


def main() -> None:
    """Run what is asked for; print every run, then the medians over seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["diabetes_mlp", "digits_mlp"])
    parser.add_argument("--kernels", nargs="+", default=DEFAULT, choices=[*OURS, *PEERS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--budget", type=float, nargs="+", default=[20.0, 45.0], help="seconds of a run, by model"
    )
    parser.add_argument("--nuts-budget", type=float, default=100.0, help="seconds of peers' NUTS")
    parser.add_argument("--nuts-seeds", type=int, default=1)
    parser.add_argument("--warmup", type=int, help="steps, in place of the recipes' own")
    parser.add_argument("--most-draws", type=int, default=3000)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if len(options.budget) not in (1, len(options.models)):
        parser.error("give one --budget, or one for each model")
    began = time.perf_counter()
    torch.set_num_threads(options.threads)
    budgets = dict(zip(options.models, options.budget * len(options.models), strict=False))
    print(
        f"{options.chains} chains, {budgets} s a run, {options.threads} threads; R-hat "
        "median / maximum, ESS median / minimum over test rows\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rates: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for model in options.models:
        script = ModelScript.load(ROOT / "models" / f"{model}.py")
        density = LogDensity(script.model, script.data.train.x, script.data.train.y)
        # Seeds outside, kernels inside: what disturbs the machine disturbs all of them.
        for seed in range(options.seeds):
            for kernel in options.kernels:
                budget = budgets[model]
                if kernel.endswith("-nuts") and seed >= options.nuts_seeds:
                    continue
                if kernel in OURS:
                    run = ours(kernel, density, script.data, options, seed, budget)
                else:
                    run = peer(kernel, model, density, script.data, options, seed, budget)
                if isinstance(run, Unfinished):
                    print(unfinished_line(model, kernel, seed, run), flush=True)
                    continue
                row, rate, converged = line(model, kernel, seed, run)
                print(row, flush=True)
                rates.setdefault((model, kernel), []).append((rate, converged))
    print("\n| model | kernel | median ESS/s | runs converged |\n|---|---|---|---|")
    for (model, kernel), found in rates.items():
        median = np.median([rate for rate, _ in found])
        reached = sum(converged for _, converged in found)
        print(f"| {model} | {kernel} | {median:.1f} | {reached} of {len(found)} |")
    print(f"\n{choice(rates, options.models)}\n\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
