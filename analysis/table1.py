"""Table 1: every method from one mode and from several, against an ensemble and against HMC.

Run: python analysis/table1.py [--quick | --paper] [--data DIR] [--out FOLDER]

One mode is one training run (or chain) with 100 draws, several are 10 runs with 10 draws each, as
the study takes them. MMD and NS (the same without symmetries), agreement and total variation are
measured to two references: many independently trained networks, and long chains of HMC, whose
convergence is stated. All other columns are those of `pyro_bnn.diagnostics.compare`. A recipe that
refuses the model is left out, with its reason.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from methods import Drawn, Effort, run
from study import Study, dataset, judged, posterior, predictions, symmetries

from pyro_bnn import LogDensity, UserError
from pyro_bnn.data import Data
from pyro_bnn.diagnostics import compare
from pyro_bnn.diagnostics.convergence import convergence
from pyro_bnn.diagnostics.plots.style import BLUE, MUTED
from pyro_bnn.symmetry import Quotient, SymmetryGroup

RECIPES = (
    "dropout",
    "mean_field",
    "low_rank",
    "swag",
    "laplace",
    "sghmc",
    "cyclical_sghmc",
    "sgld",
    "mclmc",
    "nuts",
    "hmc",
)
DISTANCES = ("mmd", "ns", "agreement", "total_variation")
PANELS = {
    "mmd": "MMD to the ensemble",
    "ns": "the same without symmetries",
    "mmd to HMC": "MMD to HMC",
    "accuracy": "accuracy",
    "nll": "NLL",
    "ece": "ECE",
    "idmi": "mutual information, test split",
    "oodmi": "mutual information, elsewhere",
}
ENSEMBLE = "ensemble, multi"  # drawn as the first reference is


class Size(NamedTuple):
    """Model script, draws and modes of a row, its warm-up and epochs; the two references."""

    script: str
    draws: int
    modes: int
    warmup: int
    epochs: int
    members: int
    chains: int
    long: int
    resamples: int


QUICK = Size("digits_mlp", 100, 10, 60, 50, 100, 8, 100, 100)
PAPER = Size("optunet_mnist", 100, 10, 1000, 100, 1000, 64, 1000, 1000)


def tree(
    drawn: Drawn, density: LogDensity, data: Data, group: SymmetryGroup, **attrs: Any
) -> xr.DataTree:
    """Return a trace with canonical weights and predictions."""
    groups = {
        "posterior": dataset(drawn.draws, density),
        "predictions": judged(density, drawn.draws, data.test),
        "predictions_constant_data": xr.Dataset({"y": ("test", data.test.y.numpy())}),
    }
    for split in list(data.ood.values())[:1]:
        groups["predictions_ood"] = predictions(density, drawn.draws, split)
    made = xr.DataTree.from_dict(groups)
    made.attrs.update({"gradients": drawn.passes, "seconds_warmup": 0.0, **attrs})
    divided = Quotient(group).apply(made, source=density)
    assert isinstance(divided, xr.DataTree)
    return divided


def rows(
    study: Study, density: LogDensity, data: Data, group: SymmetryGroup
) -> tuple[dict[str, xr.DataTree], list[str]]:
    """Run every recipe from one mode and from several; say which refused."""
    size = study.size
    forms = {
        "one": Effort(1, size.draws, size.warmup, size.epochs),
        "multi": Effort(size.modes, size.draws // size.modes, size.warmup, size.epochs),
    }
    found: dict[str, xr.DataTree] = {}
    refused: list[str] = []
    for recipe in RECIPES:
        for form, effort in forms.items():
            began = time.perf_counter()
            try:
                drawn = run(recipe, density, effort, study.seed + 1)
            except UserError as error:
                refused.append(f"{recipe}: {error}")
                break
            seconds = time.perf_counter() - began
            name = f"{recipe}, {form}"
            found[name] = tree(
                drawn, density, data, group, method=recipe, seconds_sampling=seconds, seed=1
            )
            study.keep(found[name], f"{recipe}-{form}")
            print(f"{name}: {seconds:.0f} s", flush=True)
    effort = Effort(size.modes, 1, 0, size.epochs)
    began = time.perf_counter()
    drawn = run("map", density, effort, study.seed + 1)
    seconds = time.perf_counter() - began
    found[ENSEMBLE] = tree(
        drawn, density, data, group, method="map", seconds_sampling=seconds, seed=1
    )
    return found, refused


def table(
    found: dict[str, xr.DataTree], references: dict[str, xr.DataTree], size: Size
) -> tuple[pd.DataFrame, list[str]]:
    """Compare all rows with both references: the distances to HMC are columns of their own."""
    frames, notes = [], []
    for reference in references.values():
        compared = compare(found, reference, resamples=size.resamples)
        frames.append(compared.to_frame())
        notes += compared.notes
    other = frames[1][[c for c in frames[1] if c.partition(".")[0] in DISTANCES]]
    other = other.rename(columns=_to_hmc)
    return frames[0].join(other), list(dict.fromkeys(notes))


def _to_hmc(column: str) -> str:
    name, dot, end = column.partition(".")
    return f"{name} to HMC{dot}{end}"


def draw(axes: Axes, frame: pd.DataFrame, column: str) -> None:
    """Draw one column: a line a method, hollow from one mode, full from several."""
    methods = list(dict.fromkeys(name.partition(",")[0] for name in frame.index))
    for place, method in enumerate(methods):
        for form, fill in (("one", "white"), ("multi", BLUE)):
            name = f"{method}, {form}"
            if name in frame.index and np.isfinite(frame.loc[name, column]):
                axes.plot(frame.loc[name, column], place, "o", color=BLUE, mfc=fill, ms=5)
    axes.set_yticks(range(len(methods)), methods)
    axes.grid(axis="y", lw=0.5, color=MUTED, alpha=0.3)
    axes.set_title(PANELS[column])
    axes.set_ylim(len(methods) - 0.4, -0.6)


def picture_of(frame: pd.DataFrame, study: Study) -> None:
    """Draw the columns side by side."""
    shown = [column for column in PANELS if column in frame]
    with study.figure(5.6, 10.0) as picture:
        for axes, column in zip(picture.subplots(2, 4, sharey=True).ravel(), shown, strict=False):
            draw(axes, frame, column)
        picture.suptitle("hollow: one mode; full: several", fontsize=9, x=0.01, ha="left")


def main() -> None:
    """Make the references and the rows, compare, draw."""
    study = Study.start(__doc__, QUICK, PAPER)
    size = study.size
    density, data = posterior(size.script)
    group = symmetries(density)
    efforts = {
        "ensemble": ("map", Effort(size.members, 1, 0, size.epochs)),
        "HMC": ("hmc", Effort(size.chains, size.long, size.long)),
    }
    references = {}
    for name, (recipe, effort) in efforts.items():
        drawn = run(recipe, density, effort, study.seed)
        references[name] = tree(drawn, density, data, group, method=recipe, seed=0)
        study.keep(references[name], f"reference-{name.lower()}")
        print(f"reference {name} made", flush=True)
    found, refused = rows(study, density, data, group)
    study.keep(found["hmc, multi"], "trace")
    frame, notes = table(found, references, size)
    frame.to_csv(study.out / "table.csv")
    picture_of(frame, study)
    functions = convergence(references["HMC"], "function", 500)
    assert functions is not None
    study.findings(
        f"{size.script} on {data.name}.",
        *sentences(frame),
        f"The HMC reference has {size.chains} chains of {size.long} draws: R-hat of its "
        f"predictions is {np.nanmedian(functions.rhat):.3f} in the median and "
        f"{np.nanmax(functions.rhat):.2f} at most.",
        *(f"Left out: {reason}" for reason in refused),
        *notes,
    )


def sentences(frame: pd.DataFrame) -> list[str]:
    """Say what changes from one mode to several, and which rows are best."""
    methods = [name.removesuffix(", one") for name in frame.index if name.endswith(", one")]
    lines = []
    for column, lower in (("accuracy", False), ("nll", True), ("ece", True), ("mmd", True)):
        one = frame.loc[[f"{m}, one" for m in methods], column].to_numpy(float)
        multi = frame.loc[[f"{m}, multi" for m in methods], column].to_numpy(float)
        better = int(((multi < one) if lower else (multi > one)).sum())
        best = frame[column].astype(float)
        besides = ""
        if column == "mmd":
            best, besides = best.drop(ENSEMBLE), " besides the ensemble"
        name = best.idxmin() if lower else best.idxmax()
        lines.append(
            f"Several modes are better than one in {column} for {better} of {len(methods)} "
            f"methods; best{besides} is {name} ({best[name]:.4f})."
        )
    same = "mmd to HMC" in frame
    if same:
        first, second = (frame[c].astype(float).rank() for c in ("mmd", "mmd to HMC"))
        lines.append(
            "The orders of the rows by MMD to the ensemble and to HMC correlate by "
            f"{first.corr(second):.2f}."
        )
    if "ns" in frame:
        larger = int((frame["ns"].astype(float) > frame["mmd"].astype(float)).sum())
        lines.append(f"NS is larger than MMD in {larger} of {len(frame)} rows.")
    return lines


if __name__ == "__main__":
    main()
