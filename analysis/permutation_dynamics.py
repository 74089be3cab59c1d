"""When the units of a network change their order: Kendall's tau along training.

Run: python analysis/permutation_dynamics.py [--quick | --paper] [--data DIR] [--out FOLDER]

At the end of every epoch the units of each layer are sorted as `Quotient` sorts them; tau between
the permutations of two successive epochs is 1 where no two units have changed places. The learning
rate falls by a factor of ten at one half and three quarters of the training, so that one sees
whether units move while it is high. Tau of random permutations is 0 in expectation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from members import ensemble
from numpy.typing import NDArray
from scipy.stats import kendalltau
from study import Draws, Study, dataset, flat, posterior, symmetries
from torch import Tensor

from pyro_bnn.diagnostics.plots.style import MUTED, chain_colours
from pyro_bnn.infer.guides import PointEstimate, Training
from pyro_bnn.infer.guides.descent import Parameters
from pyro_bnn.symmetry import Quotient, SymmetryGroup

MILESTONES = (0.5, 0.75)
RULES = ("first", "max", "norm")


class Size(NamedTuple):
    """Model script, members, members at once, epochs, first learning rate, rows (0: all)."""

    script: str
    members: int
    block: int
    epochs: int
    rate: float
    rows: int


QUICK = Size("digits_mlp", 32, 16, 60, 0.1, 0)
PAPER = Size("lenet5_mnist", 100, 4, 60, 0.05, 0)


class Path(PointEstimate):
    """A point estimate that remembers where it was after each epoch: its draws are these."""

    def collect(self, memory: Parameters, parameters: Parameters, epoch: int) -> Parameters:
        """Append the position, ``(member, epoch, dim)``."""
        now = parameters["position"][:, None].clone()
        return {"path": torch.cat([memory["path"], now], 1) if memory else now}

    def finish(self, parameters: Parameters, memory: Parameters, density: Any) -> Parameters:
        """Keep the whole path."""
        return {**parameters, **memory}

    def draw(self, state: Parameters, count: int, sources: Any) -> Tensor:
        """Return the last `count` positions, in their order."""
        return state["path"][:, -count:]


def permutations(group: SymmetryGroup, draws: Draws, rule: str) -> dict[str, Tensor]:
    """Sort every draw ``(member, epoch, *shape)``; permutations ``(member, epoch, unit)``."""
    members = next(iter(draws.values())).shape[0]
    quotient = Quotient(group, sign=False, scaling=None, rule=rule)  # type: ignore[arg-type]
    _, element = quotient.canonicalize(flat(draws))
    return {
        space: order.unflatten(0, (members, -1))
        for space, order in element.permutations.items()
        if order.ndim == 2
    }


def taus(order: Tensor) -> NDArray[np.float64]:
    """Kendall's tau of the places of units in successive epochs, ``(member, epoch - 1)``."""
    places = order.argsort(-1).numpy()
    return np.array(
        [[kendalltau(before, after).statistic for before, after in pairwise(one)] for one in places]
    )


def main() -> None:
    """Train, sort every epoch, compare neighbours."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    training = Training(
        epochs=size.epochs,
        batch_size=128,
        optimiser="sgd",
        learning_rate=size.rate,
        schedule="step",
        milestones=MILESTONES,
    )
    density, data = posterior(size.script, None, size.rows)
    guide = Path(density.chunked(1000), training)
    trained = ensemble(study, guide, size.members, size.block)
    draws = trained.sample_posterior(size.epochs)
    group = symmetries(density)
    found = {
        rule: {s: taus(p) for s, p in permutations(group, draws, rule).items()} for rule in RULES
    }
    study.trace({"posterior": dataset(draws, density)}, data=data.name, draws_are="epochs")
    study.table(
        [
            {"rule": rule, "space": space, "epoch": epoch + 2, "tau": float(tau), "sd": float(sd)}
            for rule, spaces in found.items()
            for space, values in spaces.items()
            for epoch, (tau, sd) in enumerate(zip(values.mean(0), values.std(0), strict=True))
        ]
    )
    spaces = list(found["first"])
    edges = [round(share * size.epochs) for share in (0.0, *MILESTONES, 1.0)]
    with study.figure(2.8, 2.9 * len(RULES)) as picture:
        for axes, rule in zip(picture.subplots(1, len(RULES), sharey=True), RULES, strict=True):
            for space, colour in zip(spaces, chain_colours(len(spaces)), strict=True):
                values = found[rule][space]
                epochs = np.arange(2, values.shape[1] + 2)
                low, middle, high = np.percentile(values, [10, 50, 90], axis=0)
                axes.fill_between(epochs, low, high, color=colour, alpha=0.25, lw=0)
                axes.plot(
                    epochs, middle, color=colour, label=f"{space}, {group.spaces[space].size} units"
                )
            for edge in edges[1:-1]:
                axes.axvline(edge + 0.5, ls="--", lw=0.8, color=MUTED)
            axes.set(title=f"sorted by: {rule}", xlabel="epoch")
        picture.axes[0].set_ylabel("tau to the epoch before")
        # Opaque: the lines of the phases pass behind it.
        picture.axes[0].legend(loc="lower right", facecolor="white", framealpha=1, edgecolor="none")
    study.findings(
        f"{size.members} members of {size.script} on {data.name}, {size.epochs} epochs of SGD at a "
        f"rate of {size.rate:g}, divided by ten after epochs {edges[1]} and {edges[2]}.",
        *idle(density.args[0]),
        *(sentence(rule, space, found[rule][space], edges) for rule in RULES for space in spaces),
    )


def idle(x: Tensor) -> list[str]:
    """Say so if the first weight of a unit sees an input that never changes."""
    first = x.flatten(1)[:, 0]
    if x.ndim > 2 or bool((first != first[0]).any()):
        return []
    return ["The first input is the same in all rows, so that weight decay alone moves its weight."]


def sentence(rule: str, space: str, values: NDArray[np.float64], edges: list[int]) -> str:
    """Say how tau and the share of unchanged orders differ between the phases of training."""
    # Entry k compares epochs k + 1 and k + 2.
    phases = [values[:, max(a - 1, 0) : b - 1] for a, b in pairwise(edges)]
    means = " / ".join(f"{phase.mean():.3f}" for phase in phases)
    still = " / ".join(f"{100 * (phase == 1).mean():.0f}" for phase in phases)
    return (
        f"Sorted by {rule}, {space}: mean tau {means} in the three phases, order unchanged in "
        f"{still} % of the epochs."
    )


if __name__ == "__main__":
    main()
