"""How far trained networks are from the least mass of their orbit: OptuNets on MNIST.

Run: python analysis/min_mass.py [--quick | --paper] [--data DIR] [--out FOLDER]

The mass of a network is the sum of its squared weights; scaling its units changes the mass and not
its function, and one scaling has the least mass. A point estimate under a normal prior has it too:
a network at the bottom of its loss with weight decay is at its minimum. One large ensemble stands
beside the study's figures (``beside.md``); smaller ones vary the weight decay and the number of
epochs (``--set sweep=0`` leaves them out). How they are trained is the recipe
``inference/study/optunet_mnist.toml``. Finished networks are kept: after a kill, the same command
with ``--resume`` trains what is left.
"""

from __future__ import annotations

import math
import resource
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from members import Members, fit
from scipy.stats import pearsonr
from study import ROOT, Draws, Study, accuracy, dataset, flat, posterior, symmetries

from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, ORANGE, chain_colours
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.symmetry import Quotient

# 1,000 OptuNets of Laurent et al. (2024), read off the vector figure of the authors' slides.
STUDY = {"mass": 165.6, "minimum": 132.8, "excess": 26.8, "quartiles": (18.4, 27.9, 35.3)}
DECAYS = (0.0, 2e-5, 2e-4, 2e-3)
DECAY = 2e-4
RECIPE = ROOT / "inference" / "study" / "optunet_mnist.toml"


class Size(NamedTuple):
    """Members of the large ensemble and of each small one; epochs (0: the recipe's) and rows."""

    members: int
    sweep: int
    epochs: int
    rows: int


QUICK, PAPER = Size(40, 4, 0, 0), Size(1000, 100, 0, 0)


def train(study: Study, decay: float, epochs: int, count: int, seed: int) -> tuple[Draws, Members]:
    """Train OptuNets by their recipe at a weight decay: draws, and how the training went."""
    recipe = Recipe.read(RECIPE, {"guide.epochs": epochs, "guide.workers": study.workers})
    assert recipe.guide is not None
    density, data = posterior("optunet_mnist", decay, study.size.rows)
    density = density.chunked(1000).augmented(data.train.transform)
    name = f"decay-{decay:g}-epochs-{epochs}-members-{count}"
    trained = fit(study, recipe.guide.ensemble(density, count), name, seed)
    return trained.ensemble.sample_posterior(1), trained


def epochs_of(size: Size) -> int:
    """Return the epochs of a training."""
    guide = Recipe.read(RECIPE).guide
    assert guide is not None
    return size.epochs or guide.epochs


def measure(draws: Draws, decay: float, epochs: int, rows: int) -> list[dict[str, Any]]:
    """Return accuracy, mass and least mass of each network ``(draw, *shape)``."""
    density, data = posterior("optunet_mnist", decay, rows)
    least = Quotient(symmetries(density), sign=False, permutation=None).reduce(draws)
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


def sweep(study: Study) -> dict[tuple[float, int], Draws]:
    """Train the small ensembles: each decay, for as many epochs and for twice as many."""
    each, count = epochs_of(study.size), study.size.sweep
    settings = [(decay, epochs) for decay in DECAYS for epochs in (each, 2 * each)] if count else []
    return {key: train(study, *key, count, study.seed + 1)[0] for key in settings}


def peak_memory() -> tuple[float, float]:
    """Largest resident memory in MB: of this process, and of any of its workers, at most."""
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    unit = 1 if sys.platform == "darwin" else 1024
    here, worker = (resource.getrusage(who).ru_maxrss * unit / 1e6 for who in whose)
    return here, worker


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
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="upper right")


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
    epochs = epochs_of(size)
    large, training = train(study, DECAY, epochs, size.members, study.seed)
    rows = measure(flat(large), DECAY, epochs, size.rows)
    small = {key: measure(flat(draws), *key, size.rows) for key, draws in sweep(study).items()}
    density, data = posterior("optunet_mnist", DECAY, size.rows)
    study.trace({"posterior": dataset(large, density)}, data=data.name, method="map")
    study.table([*rows, *(row for part in small.values() for row in part)])
    with study.figure(3.0, 10.0 if small else 7.0) as picture:
        axes = picture.subplots(1, 3 if small else 2)
        draw_scatter(axes[0], rows)
        draw_histogram(axes[1], rows)
        if small:
            draw_sweep(axes[2], small)
    (study.out / "beside.md").write_text(beside(rows), encoding="utf-8")
    study.findings(
        *summary(rows, len(density.args[0]), data.name),
        cost(training, study.workers),
        *(sentence(key, part) for key, part in small.items()),
    )


def summary(rows: list[dict[str, Any]], images: int, name: str) -> list[str]:
    """Say what the large ensemble shows, beside the study's figures."""
    excess = column(rows, "excess")
    quartiles = np.percentile(excess, [25, 50, 75])
    masses = column(rows, "mass").mean(), column(rows, "minimum").mean()
    lines = [
        f"{len(rows):,} OptuNets trained for {rows[0]['epochs']} epochs on {images:,} images of "
        f"{name} at a weight decay of {rows[0]['decay']:g}: test accuracy of the median member "
        f"{100 * np.median(column(rows, 'accuracy')):.2f} %, of the 5 % and the 95 % quantile "
        f"{100 * np.quantile(column(rows, 'accuracy'), 0.05):.1f} % and "
        f"{100 * np.quantile(column(rows, 'accuracy'), 0.95):.1f} %.",
        f"Mean mass {masses[0]:.1f} (study: {STUDY['mass']}), mean minimum {masses[1]:.1f} "
        f"({STUDY['minimum']}), mean excess {excess.mean():.1f} % ({STUDY['excess']} %), quartiles "
        + " / ".join(f"{value:.1f}" for value in quartiles)
        + f" ({' / '.join(map(str, STUDY['quartiles']))}).",
        f"{int((excess < 0.01).sum())} are at their minimum to 0.01 %; the excess reaches "
        f"from {excess.min():.2f} % to {excess.max():.0f} %, and no unit is out of balance by more "
        f"than {column(rows, 'imbalance').max():.0e} at what we call the minimum.",
        "The study trained on all 60,000 images by a recipe that it does not state.",
    ]
    if len(rows) > 2:
        found = pearsonr(column(rows, "mass"), column(rows, "minimum")).statistic
        lines.insert(2, f"Mass and minimum correlate by {found:.2f} (study: 0.95).")
    return lines


def cost(training: Members, workers: int) -> str:
    """Say what the training took."""
    if training.count == 0:
        return "All of them had been trained before."
    here, worker = peak_memory()
    processes = "one process" if workers == 1 else f"{workers} processes"
    memory = f"{here:,.0f} MB in this process"
    if workers > 1:
        memory += f" and at most {worker:,.0f} MB in one of them"
    return (
        f"The training of {training.count:,} took {training.seconds:,.0f} s in {processes}, "
        f"{training.seconds * workers / training.count:.2f} s of a process each; resident memory "
        f"reached {memory}."
    )


def beside(rows: list[dict[str, Any]]) -> str:
    """Return our figures beside the study's, as a Markdown table."""
    excess, accuracy = column(rows, "excess"), 100 * column(rows, "accuracy")
    quartiles = " / ".join(f"{value:.1f}" for value in np.percentile(excess, [25, 50, 75]))
    theirs = " / ".join(map(str, STUDY["quartiles"]))
    at_minimum = int((excess < 0.01).sum())
    lines = [
        ("", "Here", "Study"),
        ("---", "---", "---"),
        ("networks", f"{len(rows):,}", "1,000"),
        ("test accuracy of the median member", f"{np.median(accuracy):.2f} %", "not stated"),
        ("mean mass at the end of training", f"{column(rows, 'mass').mean():.1f}", STUDY["mass"]),
        ("mean least mass", f"{column(rows, 'minimum').mean():.1f}", STUDY["minimum"]),
        ("mean excess over the minimum", f"{excess.mean():.1f} %", f"{STUDY['excess']} %"),
        ("quartiles of the excess", f"{quartiles} %", f"{theirs} %"),
        ("at their minimum, to 0.01 %", f"{at_minimum:,} of {len(rows):,}", "0 of 1,000"),
    ]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


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
