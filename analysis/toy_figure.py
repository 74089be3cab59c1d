"""Figure 1: the last-layer weights of thousands of toy networks, raw, scaled, and sorted.

Run: python analysis/toy_figure.py [--quick | --paper] [--out FOLDER]

A 2-2-1 ReLU network separates two blobs; each of many trainings is one point, its two weights into
the output. Scales are removed as in the study's figure (incoming weights of norm 3), then the two
units are sorted by those weights. How far the points are spread is read off a histogram.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from members import ensemble
from numpy.typing import NDArray
from study import Draws, Study, dataset, flat, posterior, symmetries

from pyro_bnn.infer.guides import PointEstimate, Training
from pyro_bnn.symmetry import GroupElement, Quotient, SymmetryGroup

NORM = 3.0
BINS, EXTENT = 85, 5.0
TICKS = (-4, -2, 0, 2, 4)


class Size(NamedTuple):
    """Networks, how many of them at once, and epochs of each."""

    members: int
    block: int
    epochs: int
    loss: float


QUICK, PAPER = Size(2000, 500, 10, 0.01), Size(10_000, 1000, 10, 0.01)


def scaled(group: SymmetryGroup, draws: Draws) -> Draws:
    """Give every unit incoming weights of norm one, its bias among them."""
    return Quotient(group, scaling="unit-norm", permutation=None).canonicalize(draws)[0]


def in_order(group: SymmetryGroup, draws: Draws) -> Draws:
    """Sort the two units by their weight into the output, the smaller one first."""
    order = draws["2.weight"][:, 0].argsort(-1)
    return GroupElement(group, {"h0": order}, {}, {}, len(order)).apply(draws)


def occupied(points: NDArray[np.float64]) -> float:
    """Share of the cells of a histogram that hold half of the points: how spread out they are."""
    cells, _, _ = np.histogram2d(*points.T, bins=BINS, range=[[-EXTENT, EXTENT]] * 2)
    largest = np.sort(cells.ravel())[::-1].cumsum()
    return float(1 + np.searchsorted(largest, largest[-1] / 2)) / cells.size


def draw(axes: Axes, points: NDArray[np.float64], title: str) -> None:
    """Draw the density of points."""
    axes.hexbin(
        *points.T,
        gridsize=BINS,
        extent=(-EXTENT, EXTENT, -EXTENT, EXTENT),
        mincnt=1,
        cmap="viridis_r",
        vmax=max(4.0, 30 * len(points) / 10_000),
        linewidths=0.1,
    )
    axes.set(title=title, xlabel="weight of the first unit", aspect="equal")
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), xticks=TICKS, yticks=TICKS)


def main() -> None:
    """Train, divide the symmetries out one after another, draw."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    training = Training(
        epochs=size.epochs,
        batch_size=10,
        optimiser="sgd",
        learning_rate=2.0,
        momentum=0.0,
        schedule="constant",
    )
    density, _ = posterior("toy_two_blobs")
    guide = PointEstimate(density, training)
    trained = ensemble(study, guide, size.members, size.block)
    every = flat(trained.sample_posterior(1))
    losses = -density.log_likelihood(density.unconstrain(every)) / density.rows
    kept = {name: values[losses <= size.loss] for name, values in every.items()}
    group = symmetries(density)
    steps = {"raw": kept, "scales removed": scaled(group, kept)}
    steps["units sorted"] = in_order(group, steps["scales removed"])
    views = {
        name: draws["2.weight"][:, 0].double().numpy() / (1.0 if name == "raw" else NORM)
        for name, draws in steps.items()
    }
    single = {name: values[:, None] for name, values in kept.items()}
    study.trace({"posterior": dataset(single, density)}, model="toy_two_blobs", method="map")
    study.table(
        [
            {"step": name, "first": float(a), "second": float(b)}
            for name, points in views.items()
            for a, b in points
        ]
    )
    with study.figure(2.9, 8.0) as picture:
        for axes, (name, points) in zip(picture.subplots(1, 3), views.items(), strict=True):
            draw(axes, points, name)
        picture.axes[0].set_ylabel("weight of the second unit")
    before = density.potential(density.unconstrain(kept))
    after = density.log_likelihood(density.unconstrain(steps["units sorted"]))
    change = float((density.log_likelihood(density.unconstrain(kept)) - after).abs().max())
    above = float(np.mean(views["scales removed"][:, 1] >= views["scales removed"][:, 0]))
    share = {name: occupied(points) for name, points in views.items()}
    study.findings(
        f"{len(kept['2.weight']):,} of {size.members:,} networks reached a loss of {size.loss:g} "
        f"nats a point or less.",
        "Half of them lie in "
        + ", ".join(f"{100 * value:.2f} % of the cells ({name})" for name, value in share.items())
        + f" of a histogram of {BINS} x {BINS}.",
        f"Before sorting, {100 * above:.1f} % lie above the diagonal; after it, all.",
        f"The log likelihood changed by {change:.1e} at most in {len(before):,} networks.",
    )


if __name__ == "__main__":
    main()
