"""The cold-posterior curve: predictions of HMC at temperatures below and above one.

Run: python analysis/temperature.py [--quick | --paper] [--data DIR] [--out FOLDER]

The posterior is raised to the power 1 / T, prior and likelihood alike (Wenzel et al. 2020), or its
likelihood alone. Without augmentation a cold posterior is not expected to predict better (Izmailov
et al. 2021); whether it does here is what the curve shows. R-hat in function space tells which of
its points can be trusted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from methods import Effort, run
from study import Study, dataset, judged, posterior, scores

from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.diagnostics.plots.style import BLUE, MUTED, ORANGE

TEMPERATURES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
TITLES = {"nll": "NLL", "accuracy": "accuracy", "ece": "ECE"}
KINDS = {"posterior": BLUE, "likelihood": ORANGE}
CONVERGED = 1.1


class Size(NamedTuple):
    """Model script, and the effort of HMC at each temperature."""

    script: str
    chains: int
    draws: int
    warmup: int


QUICK, PAPER = Size("digits_mlp", 8, 30, 50), Size("optunet_mnist", 32, 500, 500)


def main() -> None:
    """Sample at every temperature and score the predictions."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    density, data = posterior(size.script)
    rows: list[dict[str, Any]] = []
    groups: dict[str, xr.Dataset] = {}
    for kind in KINDS:
        for temperature in TEMPERATURES:
            if kind == "likelihood" and temperature == 1.0:
                rows.append({**next(r for r in rows if r["temperature"] == 1.0), "tempered": kind})
                continue
            tempered = density.tempered(**{kind: temperature})
            effort = Effort(size.chains, size.draws, size.warmup)
            drawn = run("hmc", tempered, effort, study.seed)
            found = judged(density, drawn.draws, data.test)
            functions = convergence(xr.DataTree.from_dict({"predictions": found}), "function", 500)
            assert functions is not None
            rhat = float(np.nanmax(functions.rhat))
            name = (
                "posterior" if kind == "posterior" and temperature == 1 else f"{kind}_{temperature}"
            )
            groups[name] = dataset(drawn.draws, density)
            rows.append(
                {
                    "tempered": kind,
                    "temperature": temperature,
                    **scores(found, data.test.y),
                    "rhat": rhat,
                }
            )
            print(rows[-1], flush=True)
    study.trace(groups, data=data.name)
    study.table(rows)
    with study.figure(2.9, 9.0) as picture:
        for axes, score in zip(picture.subplots(1, 3), TITLES, strict=True):
            for kind, colour in KINDS.items():
                curve = [row for row in rows if row["tempered"] == kind]
                x = [row["temperature"] for row in curve]
                y = [row[score] for row in curve]
                axes.plot(x, y, color=colour, label=kind)
                for row, value in zip(curve, y, strict=True):
                    fill = colour if row["rhat"] <= CONVERGED else "white"
                    axes.plot(row["temperature"], value, "o", color=colour, mfc=fill, ms=5)
            axes.axvline(1.0, ls="--", lw=0.8, color=MUTED)
            axes.set(xscale="log", xlabel="temperature", title=TITLES[score])
            axes.set_xticks(TEMPERATURES, [f"{t:g}" for t in TEMPERATURES])
        picture.axes[0].legend(frameon=False, title="tempered", loc="upper left")
    study.findings(
        f"{size.script} on {data.name}, HMC with {size.chains} chains of {size.draws} draws at "
        "each temperature.",
        *(sentence(kind, [row for row in rows if row["tempered"] == kind]) for kind in KINDS),
        f"At the hollow marks of the figure the largest R-hat of a test image's predictive density "
        f"is above {CONVERGED:g}: "
        + (
            ", ".join(
                f"{row['tempered']} at {row['temperature']:g} ({row['rhat']:.2f})"
                for row in rows
                if not row["rhat"] <= CONVERGED
            )
            or "none"
        )
        + ".",
    )


def sentence(kind: str, curve: list[dict[str, Any]]) -> str:
    """Say at which temperature predictions are best, and by how much."""
    best = min(curve, key=lambda row: row["nll"])
    one = next(row for row in curve if row["temperature"] == 1.0)
    return (
        f"With the {kind} tempered, the NLL is least at T = {best['temperature']:g} "
        f"({best['nll']:.4f}; {one['nll']:.4f} at T = 1), where accuracy is "
        f"{100 * best['accuracy']:.1f} % ({100 * one['accuracy']:.1f} %) and ECE "
        f"{best['ece']:.4f} ({one['ece']:.4f})."
    )


if __name__ == "__main__":
    main()
