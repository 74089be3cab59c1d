"""How far the draws of each method are from the identities of the symmetry group.

Run: python analysis/identities.py [--model SCRIPT] [--quick] [--methods NAME ...]

For each method one row of a Markdown table: the average of the virial of every space of units and
of the output shift of every site, with its standard error, and the distance from the exact
expectation in standard errors. The identities hold for any data, so that the table tells how the
draws of a method lie along the orbits, and nothing of their predictions. Draws of the prior satisfy
them too, and chains start there: a short chain may pass for having hardly moved. Those with an
orbit move satisfy the identities by construction.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_bnn import LogDensity
from pyro_bnn.infer import HMC, MCMC, NUTS, SGHMC, SGLD
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides import SWAG, Ensemble, Laplace, MeanField, PointEstimate, Training
from pyro_bnn.symmetry import OrbitMove, SymmetryGroup, discover, identities

Draws = dict[str, Tensor]


class Size(NamedTuple):
    """How much each method may do."""

    chains: int
    warmup: int
    draws: int
    leapfrogs: int
    tree_depth: int
    steps_per_draw: int
    epochs: int
    members: int


FULL = Size(16, 400, 1000, 40, 8, 40, 100, 64)
QUICK = Size(8, 40, 40, 10, 4, 10, 15, 16)


class Task(NamedTuple):
    """What every method is given."""

    density: LogDensity
    group: SymmetryGroup
    size: Size


def hmc(task: Task) -> Draws:
    """Hamiltonian Monte Carlo with jittered trajectories."""
    return sampled(task, HMC(task.density, num_steps=task.size.leapfrogs, jitter=0.5))


def hmc_with_move(task: Task) -> Draws:
    """Let every step of HMC be followed by an orbit move."""
    kernel = HMC(task.density, num_steps=task.size.leapfrogs, jitter=0.5)
    return sampled(task, kernel, move=OrbitMove(task.density, task.group))


def nuts(task: Task) -> Draws:
    """Sample by the no-U-turn sampler."""
    return sampled(task, NUTS(task.density, max_tree_depth=task.size.tree_depth))


def sgld(task: Task) -> Draws:
    """Stochastic-gradient Langevin dynamics."""
    return sampled(task, stochastic(SGLD, task))


def sgld_with_move(task: Task) -> Draws:
    """Let every draw of SGLD be followed by an orbit move."""
    return sampled(task, stochastic(SGLD, task), move=OrbitMove(task.density, task.group))


def sghmc(task: Task) -> Draws:
    """Stochastic-gradient Hamiltonian Monte Carlo."""
    return sampled(task, stochastic(SGHMC, task))


def mean_field(task: Task) -> Draws:
    """Factorised normal distributions, one for each of a few members."""
    guide = MeanField(task.density, Training(epochs=4 * task.size.epochs))
    return fitted(guide, task, task.size.chains, task.size.draws)


def swag(task: Task) -> Draws:
    """Fit normal distributions through the iterates of stochastic gradient descent."""
    training = Training(epochs=task.size.epochs, optimiser="sgd", learning_rate=0.05)
    guide = SWAG(task.density, training, collect_epochs=20, rank=10)
    return fitted(guide, task, task.size.chains, task.size.draws)


def laplace(task: Task) -> Draws:
    """Fit normal distributions with the Kronecker-factored curvature at modes (laplace-torch)."""
    guide = Laplace(task.density, Training(epochs=task.size.epochs), structure="kron")
    return fitted(guide, task, task.size.chains, task.size.draws)


def deep_ensemble(task: Task) -> Draws:
    """Most probable weights from many starts."""
    guide = PointEstimate(task.density, Training(epochs=task.size.epochs))
    return fitted(guide, task, task.size.members, 1)


METHODS: dict[str, Callable[[Task], Draws]] = {
    "HMC": hmc,
    "HMC, orbit move": hmc_with_move,
    "NUTS": nuts,
    "SGLD": sgld,
    "SGLD, orbit move": sgld_with_move,
    "SGHMC": sghmc,
    "mean field": mean_field,
    "SWAG": swag,
    "Laplace": laplace,
    "deep ensemble": deep_ensemble,
}


def sampled(task: Task, kernel: Any, **options: Any) -> Draws:
    """Run a kernel; draws are ``(chain, draw, *shape)``."""
    size = task.size
    mcmc = MCMC(
        kernel,
        num_samples=size.draws,
        warmup_steps=size.warmup,
        num_chains=size.chains,
        seed=0,
        disable_progbar=True,
        **options,
    )
    mcmc.run()
    return mcmc.get_samples(group_by_chain=True)


def stochastic(kernel: Callable[..., Any], task: Task) -> Any:
    """Build a stochastic-gradient kernel with the settings of its recipe."""
    return kernel(
        task.density, step_size=1e-5, batch_size=128, steps_per_draw=task.size.steps_per_draw
    )


def fitted(guide: Any, task: Task, members: int, draws: int) -> Draws:
    """Fit an ensemble of a guide; a member is a chain."""
    ensemble = Ensemble(guide, size=members)
    ensemble.fit(seed=0)
    found: Draws = ensemble.sample_posterior(draws)
    return found


def main() -> None:
    """Run the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/digits_mlp.py", help="model script")
    parser.add_argument("--quick", action="store_true", help="too short for samplers to converge")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    script = ModelScript.load(Path(options.model))
    density = LogDensity(script.model, script.data.train.x, script.data.train.y)
    task = Task(density, discover(density), QUICK if options.quick else FULL)
    print(f"{script.path.name}, {density.dim:,} weights, {task.size}\n")
    names: list[str] = []
    for method in options.methods:
        started = time.perf_counter()
        torch.manual_seed(0)
        found = identities(task.group, METHODS[method](task), density)
        seconds = time.perf_counter() - started
        if not names:
            names = [name for name in found if not name.startswith("exchangeability")]
            heads = [f"{name}: {found[name].pooled[1]:g}" for name in names]
            print(f"| method | {' | '.join(f'{head} | z' for head in heads)} | seconds |")
            print(f"|---|{'---|' * (2 * len(names) + 1)}")
        cells = []
        for name in names:
            value, _, error = found[name].pooled
            cells += [f"{value:.3g} ± {error:.2g}", f"{found[name].pooled_z:.1f}"]
        print(f"| {method} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
