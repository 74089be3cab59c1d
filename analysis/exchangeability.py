"""Whether samplers mix over the order of hidden units: the unit that holds the largest weight.

Run: python analysis/exchangeability.py [--quick | --paper] [--data DIR] [--out FOLDER]

Under a prior that is i.i.d. within a layer the units of a posterior are exchangeable: among
independent draws, each unit holds the largest weight equally often. Members of an ensemble satisfy
it, and draws of the prior do; a chain that keeps its units in one order does not. The test is
`pyro_bnn.diagnostics.exchangeability`.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from methods import METHODS, Drawn, Effort, run
from study import Study, dataset, posterior

from pyro_bnn import LogDensity
from pyro_bnn.diagnostics.exchangeability import Exchangeability, exchangeability
from pyro_bnn.diagnostics.plots.style import AMBER, BLUE, MUTED


class Size(NamedTuple):
    """Model script, members of the ensemble; chains, draws, warm-up and epochs of the others."""

    script: str
    members: int
    chains: int
    draws: int
    warmup: int
    epochs: int


QUICK = Size("digits_mlp", 320, 8, 60, 60, 60)
PAPER = Size("optunet_mnist", 1000, 64, 1000, 1000, 100)


def prior(density: LogDensity, effort: Effort, seed: int) -> Drawn:
    """Draw from the prior: what the test says of independent draws."""
    source = torch.Generator().manual_seed(seed)
    position = density.initial_position(effort.chains * effort.draws, source)
    draws = density.constrain(position)
    return Drawn({n: v.unflatten(0, (-1, 1)) for n, v in draws.items()}, 0.0)


def efforts(size: Size) -> dict[str, Effort]:
    """Return what each method may do."""
    each = Effort(size.chains, size.draws, size.warmup, size.epochs)
    return {
        "prior": each._replace(chains=size.members, draws=1),
        "ensemble": each._replace(chains=size.members, draws=1),
        **{name: each for name in METHODS if name != "ensemble"},
    }


def row(method: str, found: Exchangeability, passes: float, seconds: float) -> dict[str, Any]:
    """Return what the table says of a method and a layer."""
    return {
        "method": method,
        "space": found.space,
        "units": len(found.counts),
        "draws": found.draws,
        "chi2": float(found.chi2),
        "freedom": len(found.counts) - 1,
        "p": found.p_value,
        "chains": found.chains,
        "stuck": found.stuck,
        "passes": passes,
        "seconds": seconds,
    }


def draw_counts(axes: Axes, method: str, found: Exchangeability) -> None:
    """Draw how often each unit holds the largest weight, beside what is expected."""
    counts = np.sort(found.counts)[::-1]
    expected = found.draws / len(counts)
    colour = BLUE if found.p_value >= 0.01 else AMBER
    axes.bar(range(len(counts)), counts / expected, width=1.0, color=colour)
    axes.axhline(1.0, ls="--", lw=1, color=MUTED)
    p = "< 0.001" if found.p_value < 0.001 else f"= {found.p_value:.3f}"
    axes.set(title=f"{method}: p {p}", xticks=[], xlabel=f"{len(counts)} units of {found.space}")


def main() -> None:
    """Run every method, test every layer."""
    study = Study.start(__doc__, QUICK, PAPER)
    density, data = posterior(study.size.script)
    rows: list[dict[str, Any]] = []
    drawn: dict[str, dict[str, Exchangeability]] = {}
    groups: dict[str, xr.Dataset] = {}
    for method, effort in efforts(study.size).items():
        began = time.perf_counter()
        if method == "prior":
            found = prior(density, effort, study.seed)
        else:
            found = run(METHODS[method], density, effort, study.seed)
        named = dataset(found.draws, density)
        drawn[method] = exchangeability(xr.DataTree.from_dict({"posterior": named}))
        groups[method.lower()] = named
        seconds = time.perf_counter() - began
        rows += [row(method, one, found.passes, seconds) for one in drawn[method].values()]
        print(f"{method}: {seconds:.0f} s", flush=True)
    study.trace({"posterior": groups["ensemble"], **groups}, data=data.name)
    study.table(rows)
    spaces = list(drawn["prior"])
    with study.figure(2.1 * 2 * len(spaces), 10.0) as picture:
        grid = picture.subplots(2 * len(spaces), (len(drawn) + 1) // 2, squeeze=False)
        for number, space in enumerate(spaces):
            cells = grid[2 * number : 2 * number + 2].ravel()
            for axes, (method, layers) in zip(cells, drawn.items(), strict=False):
                draw_counts(axes, method, layers[space])
            for axes in cells[len(drawn) :]:
                axes.axis("off")
        picture.supylabel("count / expected", fontsize=9)
    uniform = [f"{r['method']} ({r['space']})" for r in rows if r["p"] >= 0.01]
    rest = [r for r in rows if r["p"] < 0.01]
    study.findings(
        f"{study.size.script} on {data.name}.",
        f"At the level of 1 %, these are compatible with exchangeable units: {', '.join(uniform)}.",
        *(
            f"{r['method']} ({r['space']}) is not: chi-squared {r['chi2']:.0f} at {r['freedom']} "
            f"degrees of freedom in {r['draws']:,} thinned draws; {r['stuck']} of {r['chains']} "
            "chains never change the unit."
            for r in rest
        ),
    )


if __name__ == "__main__":
    main()
