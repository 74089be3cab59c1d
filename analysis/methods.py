"""The methods that several studies compare: the recipes of inference/, run in this process."""

from __future__ import annotations

import tomllib
from typing import Any, NamedTuple

import torch
from study import ROOT, Draws

from pyro_bnn import LogDensity
from pyro_bnn.infer import MCMC
from pyro_bnn.infer.recipe import Recipe

METHODS = {
    "ensemble": "map",
    "HMC": "hmc",
    "NUTS": "nuts",
    "MCLMC": "mclmc",
    "SGHMC": "sghmc",
    "SWAG": "swag",
}
"""Name in tables and figures to recipe."""


class Effort(NamedTuple):
    """Chains or members, draws of each, steps of warm-up, and epochs (0: those of the recipe)."""

    chains: int
    draws: int
    warmup: int
    epochs: int = 0


class Drawn(NamedTuple):
    """Draws ``(chain, draw, *shape)`` and what they cost, in gradients of all rows."""

    draws: Draws
    passes: float


def run(
    name: str, density: LogDensity, effort: Effort, seed: int, *, from_members: bool = False
) -> Drawn:
    """Run a recipe.

    Parameters
    ----------
    name : str
        Of the recipe.
    density : LogDensity
        What to infer.
    effort : Effort
        How much of it.
    seed : int
        Of the run.
    from_members : bool
        Start each chain of a kernel from a trained network of its own, as the recipe ``mile`` does.
    """
    path = ROOT / "inference" / f"{name}.toml"
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    method = "guide" if "guide" in tables else "kernel"
    changes: dict[str, Any] = {"run.chains": effort.chains, "run.draws": effort.draws}
    if method == "guide":
        changes |= {"guide.epochs": effort.epochs} if effort.epochs else {}
    else:
        changes["run.warmup"] = effort.warmup
    if from_members:
        changes |= {"start.from": "ensemble", "start.members": effort.chains}
        changes |= {"start.epochs": 500, "start.patience": 20}
    recipe = Recipe.read(path, changes)
    return _fitted(recipe, density, seed) if method == "guide" else _sampled(recipe, density, seed)


def _fitted(recipe: Recipe, density: LogDensity, seed: int) -> Drawn:
    assert recipe.guide is not None
    members = recipe.guide.ensemble(density, recipe.run.chains).fit(seed=seed)
    share = min(1.0, recipe.guide.batch_size / density.rows)
    return Drawn(members.sample_posterior(recipe.run.draws), members.gradients * share)


def _sampled(recipe: Recipe, density: LogDensity, seed: int) -> Drawn:
    assert recipe.kernel is not None
    settings = recipe.run
    source = torch.Generator().manual_seed(seed)
    start = recipe.start.positions(density, settings.chains, source)
    mcmc = MCMC(
        recipe.kernel.kernel(density),
        num_samples=settings.draws,
        warmup_steps=settings.warmup,
        num_chains=settings.chains,
        seed=seed,
        initial_params=None if start is None else start.params,
        disable_progbar=True,
    )
    mcmc.run()
    batch = getattr(recipe.kernel, "batch_size", None) or density.rows
    passes = mcmc.progress.gradients * settings.chains * min(1.0, batch / density.rows)
    passes += 0.0 if start is None else float(start.epochs.sum())
    draws: Draws = mcmc.get_samples(group_by_chain=True)
    return Drawn(draws, float(passes))
