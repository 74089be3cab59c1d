"""Which recipe is the default: ChEES against jittered HMC on `models/digits_mlp.py`.

Run: python benchmarks/default_recipe.py [--threads N] [--seeds S] [--recipes chees hmc] [--draws D]

For each recipe, its gradient compiled where the command line would compile it: seconds of warm-up
and of draws, of all seconds, compilation included; R-hat and bulk ESS of the log predictive
probabilities of the 360 test digits, median and extreme, and per second of all; the accuracy of the
posterior mean. Beside them the accuracy of the same network trained by Adam (minibatches of 64,
learning rate 0.01, 40 epochs, five seeds).
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import arviz_base
import arviz_stats
import numpy as np
import torch
from torch import nn

from pyro_bnn import Data, LogDensity
from pyro_bnn.infer import MCMC
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import predict
from pyro_bnn.infer.recipe import Recipe

ROOT = Path(__file__).parent.parent


def run(name: str, seed: int, draws: int | None, data: Data, density: LogDensity) -> None:
    """Sample one recipe and print its line."""
    recipe = Recipe.read(ROOT / "inference" / f"{name}.toml")
    settings = recipe.run
    draws = draws or settings.draws
    mcmc = MCMC(
        recipe.kernel.kernel(density.compiled() if recipe.compiles(density.rows) else density),
        draws,
        settings.warmup,
        num_chains=settings.chains,
        seed=seed,
        disable_progbar=True,
    )
    start = time.perf_counter()
    mcmc.run()
    seconds = time.perf_counter() - start
    found = predict(density, mcmc.get_samples(), data.test.x, data.test.y)
    log_predictive = found.log_predictive.unflatten(0, (settings.chains, draws)).numpy()
    tree = arviz_base.convert_to_datatree({"f": log_predictive})
    rhat = arviz_stats.rhat(tree)["f"].to_numpy()
    ess = arviz_stats.ess(tree)["f"].to_numpy()
    accuracy = (found.mean.mean(0).argmax(1) == data.test.y).double().mean()
    progress = mcmc.progress
    print(
        f"{name:5} seed {seed}  {progress.seconds_warmup:3.0f} + {progress.seconds_sampling:3.0f} "
        f"of {seconds:3.0f} s  {settings.chains * progress.gradients:7,} gradients, "
        f"{progress.gradients / (settings.warmup + draws):.0f} a step  "
        f"R-hat {np.median(rhat):.3f} / {rhat.max():.3f}  ESS {np.median(ess):6.0f} / "
        f"{ess.min():6.0f}  ESS/s {np.median(ess) / seconds:5.1f} / {ess.min() / seconds:5.1f}  "
        f"divergences {progress.divergences}  accuracy {accuracy:.4f}",
        flush=True,
    )


def adam(net: nn.Module, data: Data, seed: int) -> float:
    """Train the network as usual; return its test accuracy."""
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    rows = len(data.train.x)
    for _ in range(40):
        for batch in torch.randperm(rows).split(64):
            loss = nn.functional.cross_entropy(net(data.train.x[batch]), data.train.y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return float((net(data.test.x).argmax(1) == data.test.y).double().mean())


def main() -> None:
    """Compare the recipes, then train by Adam."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=["chees", "hmc"])
    parser.add_argument("--draws", type=int, help="in place of the recipe's own")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    script = ModelScript.load(ROOT / "models" / "digits_mlp.py")
    data = script.data
    density = LogDensity(script.model, data.train.x, data.train.y)
    print(f"{arguments.threads} threads; median / extreme of {len(data.test.x)} rows")
    for name in arguments.recipes:
        for seed in range(arguments.seeds):
            run(name, seed, arguments.draws, data, density)
    accuracies = [adam(script.model.__globals__["net"], data, seed) for seed in range(5)]
    print("Adam: " + ", ".join(f"{value:.4f}" for value in accuracies))


if __name__ == "__main__":
    main()
