"""Whether independent seeds collapse to one function: mutual information of every pair of members.

Run: python analysis/functional_collapse.py [--quick | --paper] [--data DIR] [--out FOLDER]

For two networks the mutual information of the label and the choice between them is 0 where they
agree and log 2 = 0.693 nats where they are sure of different classes. It is averaged over the test
split, and over each split from elsewhere, for every pair of an ensemble.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from members import ensemble
from numpy.typing import NDArray
from study import Study, dataset, posterior, predictions

from pyro_bnn import Split
from pyro_bnn.diagnostics.diversity import Diversity, correlation, diversity
from pyro_bnn.diagnostics.plots.style import BLUE, ORANGE
from pyro_bnn.infer.guides import PointEstimate, Training

# 1,000 ResNet-18 on CIFAR-100 and SVHN, read off the vector figure of the authors' slides.
STUDY = {"inside": (0.1075, 0.013), "outside": (0.227, 0.105)}

COLLAPSED = 0.1  # of the mean over pairs


class Size(NamedTuple):
    """Model script, members, members at once, epochs, first learning rate, inputs of a split."""

    script: str
    members: int
    block: int
    epochs: int
    rate: float
    inputs: int


QUICK = Size("digits_mlp", 200, 50, 60, 0.1, 360)
PAPER = Size("optunet_mnist", 1000, 4, 10, 0.1, 2000)


def information(found: Diversity | None) -> NDArray[np.float64]:
    """Return the mutual information of every pair."""
    assert found is not None
    assert found.mutual_information is not None
    return found.mutual_information


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Describe the distribution over pairs."""
    low, high = np.percentile(values, [5, 95])
    return {
        "mean": float(values.mean()),
        "cv": float(values.std() / values.mean()),
        "low": float(low),
        "high": float(high),
        "least": float(values.min()),
    }


def main() -> None:
    """Train an ensemble, compare every pair of members."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    training = Training(epochs=size.epochs, batch_size=64, optimiser="sgd", learning_rate=size.rate)
    density, data = posterior(size.script)
    guide = PointEstimate(density.chunked(1000), training)
    trained = ensemble(study, guide, size.members, size.block)
    draws = trained.sample_posterior(1)
    (elsewhere, far), *_ = data.ood.items()
    splits = {"predictions": data.test, "predictions_ood": far}
    groups = {
        name: predictions(density, draws, Split(s.x[: size.inputs], s.y[: size.inputs]))
        for name, s in splits.items()
    }
    groups["posterior"] = dataset(draws, density)
    study.trace(groups, data=data.name)
    tree = xr.DataTree.from_dict(groups)
    found = [diversity(tree, name) for name in splits]
    inside, outside = map(information, found)
    assert found[0] is not None
    assert found[1] is not None
    tied = correlation(found[0], found[1])
    first, second = np.triu_indices(size.members, 1)
    rows: list[dict[str, Any]] = [
        {"first": int(i), "second": int(j), "inside": float(a), "outside": float(b)}
        for i, j, a, b in zip(first, second, inside, outside, strict=True)
    ]
    study.table(rows)
    with study.figure(2.9, 9.0) as picture:
        left, middle, right = picture.subplots(1, 3)
        for axes, values, name, colour in (
            (left, inside, "test split", BLUE),
            (middle, outside, elsewhere, ORANGE),
        ):
            axes.hist(values, bins=60, color=colour, alpha=0.8)
            axes.set(title=name, xlabel="mutual information, nats", ylabel="pairs")
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=5)
        right.hexbin(inside, outside, gridsize=40, mincnt=1, cmap="viridis_r", linewidths=0.1)
        right.set(xlabel="test split", ylabel=elsewhere, title=f"rank correlation {tied:.2f}")
    numbers = {"inside": spread(inside), "outside": spread(outside)}
    nearest = numbers["inside"]["least"] / numbers["inside"]["mean"]
    wider = numbers["outside"]["cv"] / numbers["inside"]["cv"]
    study.findings(
        f"{size.members:,} members of {size.script} on {data.name}, {len(inside):,} pairs; "
        f"elsewhere is {elsewhere}.",
        *(
            f"{where.capitalize()} of the test distribution: mean {n['mean']:.4f} nats (study: "
            f"{STUDY[where][0]}), coefficient of variation {100 * n['cv']:.1f} % "
            f"({100 * STUDY[where][1]:.1f} %), 5 to 95 % of the pairs {n['low']:.4f} to "
            f"{n['high']:.4f}, least {n['least']:.4f}."
            for where, n in numbers.items()
        ),
        f"The two correlate by {tied:.2f} (Spearman) over pairs; relative to its mean the spread "
        f"outside is {wider:.1f} times that inside.",
        f"The closest pair on the test split is at {100 * nearest:.0f} % of the mean"
        + (": none has collapsed to one function." if nearest > COLLAPSED else "."),
        "The study has ResNet-18 on CIFAR-100, with SVHN elsewhere.",
    )


if __name__ == "__main__":
    main()
