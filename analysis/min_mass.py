"""How far trained networks are from the least mass of their orbit: OptuNets on MNIST.

Run: python analysis/min_mass.py [--quick | --paper] [--data DIR] [--out FOLDER]

The mass of a network is the sum of its squared weights; scaling its units changes the mass and not
its function, and one scaling has the least mass. A point estimate under a normal prior has it too:
a network at the bottom of its loss with weight decay is at its minimum. One large ensemble stands
beside the study's figures; smaller ones vary the weight decay and the number of epochs
(``--set sweep=0`` leaves them out).
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.stats import pearsonr
from study import (
    Draws,
    Job,
    Study,
    accuracy,
    dataset,
    ensemble,
    flat,
    in_processes,
    jobs,
    posterior,
    train,
)

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, ORANGE, chain_colours
from pyro_bnn.infer.guides import Training
from pyro_bnn.symmetry import Quotient, discover

# 1,000 OptuNets of Laurent et al. (2024), read off the vector figure of the authors' slides.
STUDY = {"mass": 165.6, "minimum": 132.8, "excess": 26.8, "quartiles": (18.4, 27.9, 35.3)}
DECAYS = (0.0, 2e-5, 2e-4, 2e-3)


class Size(NamedTuple):
    """Members of the large ensemble and of each small one, epochs, members at once, rows."""

    members: int
    sweep: int
    epochs: int
    more: int
    block: int
    rows: int
    schedule: str


QUICK = Size(40, 8, 10, 20, 4, 0, "one-cycle")
PAPER = Size(1000, 100, 10, 40, 4, 0, "one-cycle")


def job(size: Size, decay: float, epochs: int, seed: int) -> Job:
    """Return the training of OptuNet at a weight decay."""
    training = Training(
        epochs=epochs,
        batch_size=64,
        optimiser="sgd",
        learning_rate=0.1,
        momentum=0.9,
        schedule=size.schedule,
    )
    return Job("optunet_mnist", decay, training, size.block, seed, size.rows)


def measure(draws: Draws, decay: float, epochs: int, rows: int) -> list[dict[str, Any]]:
    """Return accuracy, mass and least mass of each network ``(draw, *shape)``."""
    density, data = posterior("optunet_mnist", decay, rows)
    least = Quotient(discover(density), sign=False, permutation=None).reduce(draws)
    table = zip(
        accuracy(density, draws, data).tolist(),
        mass(draws).tolist(),
        mass(least.params).tolist(),
        least.residual.tolist(),
        strict=True,
    )
    return [
        {
            "decay": decay,
            "epochs": epochs,
            "member": number,
            "accuracy": right,
            "mass": total,
            "minimum": minimum,
            "excess": 100 * (total / minimum - 1),
            "imbalance": imbalance,
        }
        for number, (right, total, minimum, imbalance) in enumerate(table)
    ]


def mass(draws: Draws) -> torch.Tensor:
    """Sum of squared weights, ``(draw,)``."""
    return torch.stack([v.double().square().flatten(1).sum(1) for v in draws.values()]).sum(0)


def sweep(size: Size, seed: int, workers: int) -> dict[tuple[float, int], Draws]:
    """Train the small ensembles, all jobs of all of them side by side."""
    settings = [(decay, epochs) for decay in DECAYS for epochs in (size.epochs, size.more)]
    tasks = [(key, one) for key in settings for one in jobs(job(size, *key, seed + 1), size.sweep)]
    found = list(in_processes(train, [task for _, task in tasks], workers))
    result: dict[tuple[float, int], Draws] = {}
    for (key, _), part in zip(tasks, found, strict=True):
        known = result.get(key)
        result[key] = part if known is None else {n: torch.cat([known[n], part[n]]) for n in part}
    return result


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """Return one column as an array."""
    return np.array([row[name] for row in rows])


def draw_scatter(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Mass against its minimum."""
    minimum, total = column(rows, "minimum"), column(rows, "mass")
    axes.plot(minimum, total, "o", ms=3, alpha=0.5, color=BLUE, mec="none")
    ends = [minimum.min(), minimum.max()]
    axes.plot(ends, ends, "--", lw=1, color=MUTED)
    axes.set(xlabel="least mass of the orbit", ylabel="mass at the end of training")
    axes.set_title("on the line: at the minimum")


def draw_histogram(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the excess, with the quartiles of the study."""
    axes.hist(column(rows, "excess"), bins=min(40, 4 + len(rows) // 6), color=BLUE, alpha=0.8)
    for number, quartile in enumerate(STUDY["quartiles"]):
        label = "quartiles of the study" if number == 0 else None
        axes.axvline(quartile, ls="--", lw=1, color=ORANGE, label=label)
    axes.set(xlabel="excess over the minimum, %", ylabel="networks")
    axes.legend(frameon=False)


def draw_sweep(axes: Axes, small: dict[tuple[float, int], list[dict[str, Any]]]) -> None:
    """Median excess and quartiles against the decay, a line for each number of epochs."""
    epochs = sorted({key[1] for key in small})
    for shift, (count, colour) in enumerate(zip(epochs, chain_colours(len(epochs)), strict=True)):
        excess = [column(small[decay, count], "excess") for decay in DECAYS]
        low, middle, high = np.percentile(np.array(excess), [25, 50, 75], axis=1)
        x = np.arange(len(DECAYS)) + 0.08 * shift
        ends = np.stack([middle - low, high - middle])
        axes.errorbar(x, middle, ends, fmt="o-", ms=4, color=colour, label=f"{count} epochs")
    axes.set(xlabel="weight decay", ylabel="median excess, %")
    axes.set_xticks(range(len(DECAYS)), [f"{decay:g}" for decay in DECAYS])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def main() -> None:
    """Train, find the minimum of every network, compare with the study."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    decay = 2e-4
    began = time.perf_counter()
    large = ensemble(job(size, decay, size.epochs, study.seed), size.members, study.workers)
    seconds = time.perf_counter() - began
    rows = measure(flat(large), decay, size.epochs, size.rows)
    small = {
        key: measure(flat(draws), *key, size.rows)
        for key, draws in (sweep(size, study.seed, study.workers) if size.sweep else {}).items()
    }
    density, data = posterior("optunet_mnist", decay, size.rows)
    study.trace({"posterior": dataset(large, density)}, data=data.name, method="map")
    study.table([*rows, *(row for part in small.values() for row in part)])
    with study.figure(3.0, 10.0 if small else 7.0) as picture:
        axes = picture.subplots(1, 3 if small else 2)
        draw_scatter(axes[0], rows)
        draw_histogram(axes[1], rows)
        if small:
            draw_sweep(axes[2], small)
    study.findings(
        *summary(rows, len(density.args[0]), data.name),
        f"Their training took {seconds:.0f} s with {study.workers} processes.",
        *(sentence(key, part) for key, part in small.items()),
    )


def summary(rows: list[dict[str, Any]], images: int, name: str) -> list[str]:
    """Say what the large ensemble shows, beside the study's figures."""
    excess = column(rows, "excess")
    quartiles = np.percentile(excess, [25, 50, 75])
    masses = column(rows, "mass").mean(), column(rows, "minimum").mean()
    lines = [
        f"{len(rows):,} OptuNets trained for {rows[0]['epochs']} epochs on {images:,} images of "
        f"{name} at a weight decay of {rows[0]['decay']:g}: median test accuracy "
        f"{100 * np.median(column(rows, 'accuracy')):.1f} %.",
        f"Mean mass {masses[0]:.1f} (study: {STUDY['mass']}), mean minimum {masses[1]:.1f} "
        f"({STUDY['minimum']}), mean excess {excess.mean():.1f} % ({STUDY['excess']} %), quartiles "
        + " / ".join(f"{value:.1f}" for value in quartiles)
        + f" ({' / '.join(map(str, STUDY['quartiles']))}).",
        f"{int((excess < 0.01).sum())} are at their minimum to 0.01 %; the least excess is "
        f"{excess.min():.2f} %, and no unit is out of balance by more than "
        f"{column(rows, 'imbalance').max():.0e} at what we call the minimum.",
        "The study trained on all 60,000 images by a recipe that it does not state.",
    ]
    if len(rows) > 2:
        found = pearsonr(column(rows, "mass"), column(rows, "minimum")).statistic
        lines.insert(2, f"Mass and minimum correlate by {found:.2f} (study: 0.95).")
    return lines


def sentence(key: tuple[float, int], rows: list[dict[str, Any]]) -> str:
    """Say what a small ensemble shows."""
    middle = float(np.median(column(rows, "excess")))
    digits = max(0, 1 - math.floor(math.log10(max(middle, 1e-9))))
    return (
        f"Decay {key[0]:g}, {key[1]} epochs, {len(rows)} networks: median excess "
        f"{middle:.{digits}f} %, mean mass {column(rows, 'mass').mean():.0f}."
    )


if __name__ == "__main__":
    main()
