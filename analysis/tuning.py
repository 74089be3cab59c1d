"""Settings of a guide's recipe by their score on rows held out of the training split.

Run: python analysis/tuning.py RECIPE [KEY=VALUE,VALUE ...] [--model SCRIPT] [--seed S]

Every combination of the values is fitted to four fifths of the training split and judged by the
mean predictive of all members and draws on the last fifth; the test split is not looked at. The
first row is the recipe as it is, the last the recipe `map` with one member and with as many as
the guide has: what the guide is to beat. For example:

    python analysis/tuning.py inference/low_rank.toml guide.rank=2,5 guide.kl_weight=0.1,1
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from study import ROOT

from pyro_bnn import LogDensity, Split
from pyro_bnn.diagnostics import metrics
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import predict
from pyro_bnn.infer.recipe import Recipe

HELD = 5


def parts(split: Split) -> tuple[Split, Split]:
    """Split rows at random, always alike: four fifths to fit, one to judge by."""
    order = torch.randperm(len(split.x), generator=torch.Generator().manual_seed(0))
    count = len(order) // HELD
    judge, fit = (Split(split.x[rows], split.y[rows]) for rows in (order[:count], order[count:]))
    return fit, judge


def combinations(options: list[str]) -> Iterator[dict[str, Any]]:
    """Yield nothing changed, then every combination of ``key=value,value`` options."""
    yield {}
    keys = [option.partition("=")[0] for option in options]
    values = [map(read, option.partition("=")[2].split(",")) for option in options]
    if keys:
        for chosen in itertools.product(*values):
            yield dict(zip(keys, chosen, strict=True))


def read(word: str) -> Any:
    """Read a number, or take the word as it is."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def score(recipe: Recipe, density: LogDensity, judge: Split, seed: int) -> tuple[float, ...]:
    """Fit a guide; return accuracy and log score on the rows held out, and the seconds."""
    assert recipe.guide is not None
    started = time.perf_counter()
    guide = recipe.guide.ensemble(density, recipe.run.chains).fit(seed=seed)
    seconds = time.perf_counter() - started
    source = torch.Generator().manual_seed(seed)
    draws = guide.sample_posterior(recipe.run.draws, source)
    flat = {name: values.flatten(0, 1) for name, values in draws.items()}
    mean = predict(density, flat, judge.x, judge.y).mean.double().mean(0)
    right = mean.gather(1, judge.y[:, None]).clamp_min(1e-300)
    accuracy = metrics.accuracy(mean.numpy(), judge.y.numpy())
    return accuracy, float(-right.log().mean()), seconds


def main() -> None:
    """Print one row of a table a combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE,VALUE")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "digits_mlp.py")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    script = ModelScript.load(arguments.model)
    fit, judge = parts(script.data.train)
    density = LogDensity(script.model, fit.x, fit.y)
    print(f"{len(fit.x)} rows to fit, {len(judge.x)} to judge by\n")
    print("| recipe | changed | accuracy | NLL | seconds |\n|---|---|---|---|---|")
    tried = [(arguments.recipe, changed) for changed in combinations(arguments.options)]
    size = Recipe.read(arguments.recipe).run.chains
    tried += [(ROOT / "inference" / "map.toml", {"run.chains": count}) for count in (1, size)]
    for path, changed in tried:
        recipe = Recipe.read(path, changed)
        accuracy, nll, seconds = score(recipe, density, judge, arguments.seed)
        told = ", ".join(f"{key} = {value}" for key, value in changed.items()) or "nothing"
        print(f"| {path.stem} | {told} | {accuracy:.3f} | {nll:.4f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
