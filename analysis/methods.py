"""The methods that several studies compare, each with the settings of its recipe in inference/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from study import Draws

from pyro_bnn import LogDensity
from pyro_bnn.infer import HMC, MCLMC, MCMC, NUTS, SGHMC, ensemble_start
from pyro_bnn.infer.guides import SWAG, Ensemble, PointEstimate, Training
from pyro_bnn.infer.guides.guide import Guide

BATCH = 128


class Effort(NamedTuple):
    """Chains or members, draws that are kept of each, steps of warm-up, epochs of training."""

    chains: int
    draws: int
    warmup: int
    epochs: int


class Drawn(NamedTuple):
    """Draws ``(chain, draw, *shape)`` and what they cost, in gradients of all rows."""

    draws: Draws
    passes: float


Method = Callable[[LogDensity, Effort, int], Drawn]


def ensemble(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Train point estimates from starts of their own; one draw each."""
    guide = PointEstimate(density, Training(epochs=effort.epochs, batch_size=BATCH))
    return fitted(guide, effort._replace(draws=1), seed)


def swag(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Fit a normal distribution through the iterates of SGD, around each of several modes."""
    training = Training(
        epochs=max(1, effort.epochs // 2),
        batch_size=BATCH,
        optimiser="sgd",
        learning_rate=0.05,
        schedule="step",
    )
    collected = max(2, effort.epochs // 2)
    guide = SWAG(
        density, training, collect_epochs=collected, collect_rate=0.02, rank=min(20, collected)
    )
    return fitted(guide, effort, seed)


def hmc(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Hamiltonian Monte Carlo with jittered trajectories."""
    return sampled(HMC(density, num_steps=40, jitter=0.5), density, effort, seed)


def nuts(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Sample by the no-U-turn sampler, from the prior."""
    return sampled(NUTS(density, max_tree_depth=7), density, effort, seed)


def mclmc(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Sample by unadjusted microcanonical Langevin dynamics, from the prior."""
    return sampled(MCLMC(density, steps_per_draw=10), density, effort, seed)


def mclmc_from_ensemble(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Sample by the same from trained members, one a chain (Sommer et al. 2025)."""
    source = torch.Generator().manual_seed(seed)
    start = ensemble_start(density, effort.chains, effort.chains, source, epochs=200)
    kernel = MCLMC(density, steps_per_draw=10)
    found = sampled(kernel, density, effort, seed, initial_params=start.params)
    return found._replace(passes=found.passes + float(start.epochs.sum()))


def sghmc(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Stochastic-gradient Hamiltonian Monte Carlo, at a constant learning rate."""
    kernel = SGHMC(density, step_size=1e-5, friction=0.1, batch_size=BATCH, steps_per_draw=20)
    found = sampled(kernel, density, effort, seed)
    return found._replace(passes=found.passes * min(1.0, BATCH / density.rows))


METHODS: dict[str, Method] = {
    "ensemble": ensemble,
    "HMC": hmc,
    "NUTS": nuts,
    "MCLMC": mclmc,
    "SGHMC": sghmc,
    "SWAG": swag,
}


def sampled(kernel: Any, density: LogDensity, effort: Effort, seed: int, **options: Any) -> Drawn:
    """Run a kernel."""
    mcmc = MCMC(
        kernel,
        num_samples=effort.draws,
        warmup_steps=effort.warmup,
        num_chains=effort.chains,
        seed=seed,
        disable_progbar=True,
        **options,
    )
    mcmc.run()
    draws: Draws = mcmc.get_samples(group_by_chain=True)
    return Drawn(draws, float(mcmc.progress.gradients * effort.chains))


def fitted(guide: Guide, effort: Effort, seed: int) -> Drawn:
    """Fit an ensemble of a guide; a member is a chain."""
    members = Ensemble(guide, size=effort.chains).fit(seed=seed)
    share = min(1.0, BATCH / guide.density.rows)
    return Drawn(members.sample_posterior(effort.draws), members.gradients * share)
