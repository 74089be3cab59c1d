"""What the studies share: their command line, the training of members, and what they write.

A study has a size for a laptop (``--quick``) and one for a cluster (``--paper``), a `NamedTuple` of
numbers each; ``--set NAME=VALUE`` changes one of them. It writes into its folder what it drew
(``trace.nc``), ``figure.png``, ``table.csv`` and ``findings.md``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor

from pyro_bnn import LogDensity
from pyro_bnn.data import Data, Split
from pyro_bnn.datasets import ROOT_VARIABLE
from pyro_bnn.diagnostics import metrics
from pyro_bnn.diagnostics.plots import style
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides.network import find_network
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.symmetry import SymmetryGroup, discover
from pyro_bnn.trace import encode_attrs, site_dataset, write_trace

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
NO_DECAY = 1e-9
ROWS = 256  # on which symmetries are found
AT_ONCE = 64  # networks whose predictions are in memory together

Draws = dict[str, Tensor]


@dataclass
class Study:
    """A running study: where it writes and how large it is.

    Attributes
    ----------
    name, out : str, Path
        Name of the script, and the folder that it writes to.
    size : NamedTuple
        The numbers that make it quick or long.
    label : str
        ``"quick"`` or ``"paper"``, with what was changed.
    workers, seed : int
        Processes, and the seed of everything.
    resume : bool
        Whether to go on with the training of members that was cut off.
    """

    name: str
    out: Path
    size: Any
    label: str
    workers: int
    seed: int
    resume: bool
    started: float

    @classmethod
    def start(cls, doc: str | None, quick: NamedTuple, paper: NamedTuple) -> Study:
        """Read the command line."""
        name = Path(sys.argv[0]).stem
        parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--quick", action="store_true", help="minutes on two cores (default)")
        which.add_argument("--paper", action="store_true", help="the size of the paper")
        parser.add_argument("--data", type=Path, help=f"folder of the data sets ({ROOT_VARIABLE})")
        parser.add_argument("--out", type=Path, help="folder to write to (runs/study/NAME-SIZE)")
        parser.add_argument("--workers", type=int, default=cores(), help="processes")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
        told = "go on with a training of members that was cut off"
        parser.add_argument("--resume", action="store_true", help=told)
        chosen = parser.parse_args()
        if chosen.data is not None:
            os.environ[ROOT_VARIABLE] = str(chosen.data)
        label = "paper" if chosen.paper else "quick"
        changes = dict(pair.split("=", 1) for pair in chosen.set)
        size: Any = paper if chosen.paper else quick
        unknown = changes.keys() - set(size._fields)
        if unknown:
            parser.error(f"{', '.join(unknown)} is none of {', '.join(size._fields)}")
        size = size._replace(**{k: type(getattr(size, k))(v) for k, v in changes.items()})
        out = chosen.out or Path("runs") / "study" / f"{name}-{label}"
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(max(1, chosen.workers))
        torch.manual_seed(chosen.seed)
        label = ", ".join([label, *chosen.set])
        workers, seed, resume = chosen.workers, chosen.seed, chosen.resume
        return cls(name, out, size, label, workers, seed, resume, time.perf_counter())

    def trace(self, groups: Mapping[str, xr.Dataset], name: str = "trace", **attrs: Any) -> Path:
        """Write groups as a trace of the given name and return its file."""
        tree = xr.DataTree.from_dict(dict(groups))
        tree.attrs.update({"seed": self.seed, **attrs})
        return self.keep(tree, name)

    def keep(self, tree: xr.DataTree, name: str) -> Path:
        """Write a trace of the given name and return its file."""
        tree.attrs.update(encode_attrs({"study": self.name, **tree.attrs}))
        path = self.out / f"{name}.nc"
        path.unlink(missing_ok=True)
        write_trace(tree, path)
        return path

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write rows as a CSV file; floating-point numbers with six digits."""
        path = self.out / "table.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                )
        return path

    @contextmanager
    def figure(self, height: float, width: float) -> Iterator[Figure]:
        """Draw a figure, which is written when the context is left."""
        with style.look():
            picture = style.figure(height, width)
            yield picture
            picture.savefig(self.out / "figure.png", dpi=150, facecolor="white")

    def findings(self, *sentences: str) -> None:
        """Print and write what was found, with the size and the time of the study."""
        seconds = time.perf_counter() - self.started
        what = f"{self.name}, size {self.label}, seed {self.seed}, {seconds:.0f} s."
        text = f"{' '.join(sentences)}\n\n{what}\n"
        (self.out / "findings.md").write_text(text, encoding="utf-8")
        print(f"{text}\nwritten to {self.out}")


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(script: str) -> ModelScript:
    """Load a model script that ships."""
    return ModelScript.load(MODELS / f"{script}.py")


@functools.lru_cache(maxsize=4)
def posterior(script: str, decay: float | None = None, rows: int = 0) -> tuple[LogDensity, Data]:
    """Return the log density and the data of a script, at another weight decay if one is given.

    A weight decay `d` of the mean loss over `n` rows is a normal prior of deviation
    ``1 / sqrt(d n)``; that of 0 is taken as one of 1e-9.
    """
    found = load(script)
    data = found.data
    train = data.train
    x, y = (train.x[:rows], train.y[:rows]) if rows else (train.x, train.y)
    density = LogDensity(found.model, x, y)
    if decay is not None:
        net = find_network(density).module
        bnn = lift(net, prior=Normal(scale=(max(decay, NO_DECAY) * len(x)) ** -0.5))
        density = LogDensity(lambda x, y=None: categorical(bnn(x), y), x, y)
    return density, data


def flat(draws: Mapping[str, Tensor]) -> Draws:
    """Join the axes of chains and draws."""
    return {name: values.flatten(0, 1) for name, values in draws.items()}


def symmetries(density: LogDensity) -> SymmetryGroup:
    """Find the symmetries on a few rows: they are the network's, whatever the data."""
    return discover(density.chunked(ROWS))


def dataset(draws: Mapping[str, Tensor], density: LogDensity) -> xr.Dataset:
    """Name the axes of draws ``(chain, draw, *shape)`` by the symmetries of the network."""
    return site_dataset(draws, symmetries(density).dims)


def probabilities(density: LogDensity, draws: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Class probabilities ``(draw, row, class)`` of draws ``(draw, *shape)``, a few at a time."""
    from pyro_bnn.infer.predict import predict

    count = len(next(iter(draws.values())))
    step = max(1, 2**15 // len(x))
    parts = []
    for at in range(0, count, step):
        some = {name: values[at : at + step] for name, values in draws.items()}
        parts.append(predict(density, some, x, y).mean)
    return torch.cat(parts)


def predictions(density: LogDensity, draws: Mapping[str, Tensor], split: Split) -> xr.Dataset:
    """Class probabilities of draws ``(chain, draw, *shape)`` as a group of a trace."""
    shape = next(iter(draws.values())).shape[:2]
    # Labels are not asked for: from elsewhere, they need not be of the model's classes.
    labels = density.args[1][:1].expand(len(split.x))
    mean = probabilities(density, flat(draws), split.x, labels).unflatten(0, shape)
    dims = ("chain", "draw", "test", "class")[: mean.ndim]
    kind = "categorical" if mean.ndim == 4 else "bernoulli"
    return xr.Dataset({"mean": (dims, mean.numpy())}, attrs={"likelihood": kind})


def judged(density: LogDensity, draws: Mapping[str, Tensor], split: Split) -> xr.Dataset:
    """Add to `predictions` the log probability of the labels, by which convergence is judged."""
    found = predictions(density, draws, split)
    labels = xr.DataArray(split.y.numpy(), dims="test")
    right = found["mean"].isel({"class": labels})
    return found.assign(log_predictive=np.log(right + 1e-30))


def scores(found: xr.Dataset, y: Tensor) -> dict[str, float]:
    """Accuracy, negative log likelihood, Brier score and calibration of the mean prediction."""
    mean = found["mean"].mean(("chain", "draw")).to_numpy().astype(np.float64)
    labels = y.numpy()
    right = mean[np.arange(len(labels)), labels]
    return {
        "accuracy": metrics.accuracy(mean, labels),
        "nll": float(-np.log(np.maximum(right, 1e-300)).mean()),
        "brier": metrics.brier(mean, labels),
        "ece": metrics.expected_calibration_error(mean, labels),
    }


def accuracy(density: LogDensity, draws: Mapping[str, Tensor], data: Data) -> Tensor:
    """Share of right answers on the test split of each draw, ``(draw,)``."""
    count = len(next(iter(draws.values())))
    right = []
    for at in range(0, count, AT_ONCE):
        some = {name: values[at : at + AT_ONCE] for name, values in draws.items()}
        found = probabilities(density, some, data.test.x, data.test.y)
        right.append((found.argmax(-1) == data.test.y).double().mean(1))
    return torch.cat(right)
