"""Many modes or many draws of each: predictions against both, at equal cost in gradients.

Run: python analysis/sampling_budget.py [--quick | --paper] [--data DIR] [--out FOLDER]

NUTS from the prior, MCLMC from trained members, ensembles and SWAG are given as many chains or
modes as the largest budget has; smaller budgets are subsets of the same draws. The price of a
subset is its part of the gradients of all rows that the method spent, warm-up or training counted
for every chain, draws for those that are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from methods import Drawn, Effort, run
from study import Study, dataset, posterior, predictions, scores
from torch import Tensor

from pyro_bnn.diagnostics.plots.style import chain_colours


class Size(NamedTuple):
    """Model script, most modes and most draws of each, warm-up, epochs."""

    script: str
    modes: int
    draws: int
    warmup: int
    epochs: int


QUICK, PAPER = Size("digits_mlp", 8, 64, 60, 60), Size("optunet_mnist", 64, 1024, 1000, 100)

METHODS = {"NUTS": "nuts", "MCLMC from members": "mclmc", "ensemble": "map", "SWAG": "swag"}
SAMPLERS = ("NUTS", "MCLMC from members")
LABELS = {
    "passes": "gradients of all rows (best subset)",
    "modes": "modes, all draws",
    "draws": "draws of each, all modes",
}


def powers(most: int) -> list[int]:
    """Return 1, 4, 16, ... up to the number itself."""
    found = [4**k for k in range(20) if 4**k < most]
    return [*found, most]


def subset(found: xr.Dataset, modes: int, draws: int) -> xr.Dataset:
    """Take the first chains and evenly spaced draws of them."""
    kept = np.linspace(0, found.sizes["draw"] - 1, draws).round().astype(int)
    return found.isel(chain=slice(modes), draw=kept)


def curve(method: str, drawn: Drawn, found: xr.Dataset, y: Tensor, effort: Effort) -> list[Any]:
    """Score every subset of a method's draws."""
    chains, length = found.sizes["chain"], found.sizes["draw"]
    each = drawn.passes / chains
    # Draws of a guide cost no gradient; those of a sampler what its steps after warm-up do.
    share = effort.warmup / (effort.warmup + length) if method in SAMPLERS else 1.0
    return [
        {
            "method": method,
            "modes": modes,
            "draws": draws,
            "passes": modes * each * (share + (1 - share) * draws / length),
            **scores(subset(found, modes, draws), y),
        }
        for modes in powers(chains)
        for draws in powers(length)
    ]


def draw(axes: Axes, rows: list[dict[str, Any]], score: str, against: str) -> None:
    """Draw a score against price, modes or draws."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    most = {m: max(r["modes"] for r in rows if r["method"] == m) for m in methods}
    for method, colour in zip(methods, chain_colours(len(methods)), strict=True):
        own = [row for row in rows if row["method"] == method]
        length = max(row["draws"] for row in own)
        if against == "draws":
            own = [row for row in own if row["modes"] == most[method]]
        elif against == "modes":
            own = [row for row in own if row["draws"] == length]
        else:
            own = frontier(own, score)
        line = sorted((row[against], row[score]) for row in own)
        axes.plot(*zip(*line, strict=True), "o-", ms=4, color=colour, label=method)
    axes.set(xscale="log", xlabel=LABELS[against])


def frontier(rows: list[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Keep the subsets that no cheaper one beats."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["passes"], row[score])):
        if not kept or row[score] < kept[-1][score]:
            kept.append(row)
    return kept


def main() -> None:
    """Run the methods once, score all subsets of their draws."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    density, data = posterior(size.script)
    rows: list[dict[str, Any]] = []
    groups: dict[str, xr.Dataset] = {}
    for method, recipe in METHODS.items():
        alone = method == "ensemble"
        effort = Effort(
            size.modes * (size.draws if alone else 1) // (4 if alone else 1),
            1 if alone else size.draws,
            size.warmup,
            size.epochs,
        )
        drawn = run(recipe, density, effort, study.seed, from_members="members" in method)
        found = predictions(density, drawn.draws, data.test)
        rows += curve(method, drawn, found, data.test.y, effort)
        groups["posterior" if recipe == "nuts" else recipe] = dataset(drawn.draws, density)
        print(f"{method}: {drawn.passes:,.0f} gradients of all rows", flush=True)
    study.table(rows)
    study.trace(groups, data=data.name)
    with study.figure(2.9, 9.6) as picture:
        for axes, against in zip(picture.subplots(1, 3, sharey=True), LABELS, strict=True):
            draw(axes, rows, "nll", against)
        picture.axes[0].set_ylabel("negative log likelihood, test")
        picture.axes[2].legend(frameon=False, loc="center right")
    study.findings(f"{size.script} on {data.name}.", *sentences(rows))


def counted(number: int, what: str) -> str:
    """Put a number before its noun."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """Say what each method reaches, and which is best at a common price."""
    lines = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        best = min(own, key=lambda row: row["nll"])
        one = min((row for row in own if row["modes"] == 1), key=lambda row: row["nll"])
        lines.append(
            f"{method}: NLL {best['nll']:.4f} from {counted(best['modes'], 'mode')} of "
            f"{counted(best['draws'], 'draw')} ({best['passes']:,.0f} gradients of all rows); one "
            f"mode reaches {one['nll']:.4f}."
        )
    prices = [max(row["passes"] for row in rows if row["method"] == m) for m in METHODS]
    common = min(prices)
    reached = {
        m: min(
            (r["nll"] for r in rows if r["method"] == m and r["passes"] <= common),
            default=float("inf"),
        )
        for m in METHODS
    }
    order = sorted(reached, key=lambda method: reached[method])
    lines.append(
        f"Within {common:,.0f} gradients of all rows, which every method has spent at least: "
        + ", ".join(
            f"{m} {reached[m]:.4f}" if np.isfinite(reached[m]) else f"{m} has no draw yet"
            for m in order
        )
        + "."
    )
    return lines


if __name__ == "__main__":
    main()
