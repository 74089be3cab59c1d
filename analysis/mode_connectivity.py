"""Barriers on the straight line between networks, before and after their units are aligned.

Run: python analysis/mode_connectivity.py [--quick | --paper] [--data DIR] [--out FOLDER]

The loss along the straight line between two networks, less what a straight line between the losses
of its ends would have, is highest at the barrier (Frankle et al. 2020). Pairs are members of an
ensemble (modes) and draws of HMC (one chain, two chains), in three forms: as they are, sorted after
their scales are removed, and aligned to each other after that. Where symmetry alone separates two
networks, alignment takes the barrier away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from methods import Drawn, Effort, run
from numpy.typing import NDArray
from study import Draws, Study, dataset, flat, posterior, symmetries

from pyro_bnn import LogDensity
from pyro_bnn.diagnostics.plots.style import AMBER, BLUE, ORANGE
from pyro_bnn.symmetry import Quotient, SymmetryGroup, align

POINTS = 11
FORMS = {"as they are": ORANGE, "sorted": AMBER, "aligned": BLUE}


class Size(NamedTuple):
    """Model script, pairs of each kind, and the effort of ensemble and sampler."""

    script: str
    pairs: int
    members: int
    epochs: int
    chains: int
    draws: int
    warmup: int


QUICK = Size("digits_mlp", 20, 40, 100, 8, 40, 100)
PAPER = Size("optunet_mnist", 500, 1000, 100, 64, 500, 1000)

Ends = tuple[Draws, Draws]


def pick(draws: Draws, first: list[int], second: list[int]) -> Ends:
    """Return both ends of pairs, ``(pair, *shape)``."""
    return (
        {name: values[first] for name, values in draws.items()},
        {name: values[second] for name, values in draws.items()},
    )


def pairs(modes: Drawn, chains: Drawn, count: int) -> dict[str, Ends]:
    """Choose pairs of modes, of draws of one chain half a run apart, and of two chains."""
    members = len(next(iter(modes.draws.values())))
    number, length = next(iter(chains.draws.values())).shape[:2]
    along = np.arange(count)
    one = (along % number) * length + (along // number) % (length // 2)
    other = ((along + 1) % number) * length + (along // number) % (length // 2)
    found = flat(chains.draws)
    odd = (2 * along % members).tolist(), ((2 * along + 1) % members).tolist()
    return {
        "two modes": pick(flat(modes.draws), *odd),
        "one chain": pick(found, one.tolist(), (one + length // 2).tolist()),
        "two chains": pick(found, one.tolist(), other.tolist()),
    }


def forms(group: SymmetryGroup, ends: Ends) -> dict[str, Ends]:
    """Return pairs as they are, sorted and scaled, and aligned to each other after that."""
    left, right = (Quotient(group).canonicalize(end)[0] for end in ends)
    matched = align(group, right, left).params
    return {"as they are": ends, "sorted": (left, right), "aligned": (left, matched)}


def losses(density: LogDensity, ends: Ends) -> NDArray[np.float64]:
    """Minus the mean log likelihood of a training row along the line, ``(pair, point)``."""
    left, right = (
        density.unconstrain({n: v.to(density.dtype) for n, v in e.items()}) for e in ends
    )
    found = []
    for share in torch.linspace(0, 1, POINTS):
        value = density.log_likelihood((1 - share) * left + share * right)
        found.append(-value.double() / density.rows)
    return torch.stack(found, 1).numpy()


def barriers(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the most that the loss rises above the line between the ends, ``(pair,)``."""
    share = np.linspace(0, 1, POINTS)
    straight = loss[:, :1] * (1 - share) + loss[:, -1:] * share
    result: NDArray[np.float64] = (loss - straight).max(1)
    return result


def main() -> None:
    """Train, sample, and walk from one network to the other."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    density, data = posterior(size.script)
    effort = Effort(size.members, size.draws, size.warmup, size.epochs)
    modes = run("map", density, effort._replace(draws=1), study.seed)
    chains = run("hmc", density, effort._replace(chains=size.chains), study.seed)
    group = symmetries(density)
    chunked = density.chunked(2000)
    curves: dict[tuple[str, str], NDArray[np.float64]] = {}
    for kind, ends in pairs(modes, chains, size.pairs).items():
        for form, these in forms(group, ends).items():
            curves[kind, form] = losses(chunked, these)
    groups: dict[str, xr.Dataset] = {
        "posterior": dataset(chains.draws, density),
        "modes": dataset(modes.draws, density),
    }
    study.trace(groups, data=data.name)
    rows: list[dict[str, Any]] = [
        {"pair": kind, "form": form, "number": number, "barrier": float(height)}
        for (kind, form), loss in curves.items()
        for number, height in enumerate(barriers(loss))
    ]
    study.table(rows)
    kinds = list(dict.fromkeys(kind for kind, _ in curves))
    with study.figure(2.8, 9.6) as picture:
        for axes, kind in zip(picture.subplots(1, len(kinds), sharey=True), kinds, strict=True):
            share = np.linspace(0, 1, POINTS)
            for form, colour in FORMS.items():
                loss = curves[kind, form]
                low, middle, high = np.percentile(loss, [10, 50, 90], axis=0)
                axes.fill_between(share, low, high, color=colour, alpha=0.2, lw=0)
                axes.plot(share, middle, color=colour, label=form)
            axes.set(title=kind, xlabel="share of the way", yscale="log")
        picture.axes[0].set_ylabel("nats a training row")
        picture.axes[0].legend(frameon=False)
    study.findings(
        f"{size.script} on {data.name}, {size.pairs} pairs of each kind; barriers in nats a "
        "training row, median and 10 % to 90 % of the pairs.",
        *(sentence(kind, curves) for kind in kinds),
    )


def sentence(kind: str, curves: dict[tuple[str, str], NDArray[np.float64]]) -> str:
    """Say how high the barriers of one kind of pair are in each form."""
    parts = []
    for form in FORMS:
        low, middle, high = np.percentile(barriers(curves[kind, form]), [10, 50, 90])
        parts.append(f"{form} {middle:.3f} ({low:.3f} to {high:.3f})")
    raw, aligned = (np.median(barriers(curves[kind, f])) for f in ("as they are", "aligned"))
    left = f"; alignment leaves {100 * aligned / raw:.0f} % of it" if raw > 1e-3 else ""
    return f"{kind.capitalize()}: {', '.join(parts)}{left}."


if __name__ == "__main__":
    main()
