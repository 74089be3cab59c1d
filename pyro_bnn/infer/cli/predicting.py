"""What the draws say of each datum, streamed into a finished trace.

Groups: ``predictions`` (test split), ``predictions_ood`` (splits from elsewhere),
``log_likelihood`` (training rows) and ``predictions_corrupted`` (the test split, corrupted as the
script declares).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.corruption import SEVERITIES
from pyro_bnn.data import Data, Split
from pyro_bnn.errors import UserError
from pyro_bnn.infer.corrupted import predict_corrupted
from pyro_bnn.infer.predict import likelihood_kind, predict_in_chunks
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.trace import GroupAppender, add_groups, open_trace
from pyro_bnn.trace.dead_chains import without_dead_chains

__all__ = [
    "LOG_LIKELIHOOD_VALUES",
    "predict_anew",
    "record_corrupted",
    "record_predictions",
    "site_values",
]

LOG_LIKELIHOOD_VALUES = 2**24
"""Draws times training rows that ``log_likelihood`` may hold."""

CORRUPTED_DRAWS = 200
"""Draws, over all chains, behind the predictions on corrupted inputs."""

_BLOCK_BYTES = 2**25
_ELSEWHERE = "predictions_ood"
_LIKELIHOOD = "log_likelihood"


def record_predictions(
    file: Path, density: LogDensity, data: Data, kind: str, seed: int = 0
) -> None:
    """Add ``predictions``, ``log_likelihood`` and, if there are such splits, ``predictions_ood``.

    The log likelihood is that of every training row as long as draws times rows are at most 2^24
    (64 MiB in single precision), else of a random sample of rows that fits; the coordinate
    ``train`` holds their numbers. That of the test rows is ``log_predictive`` of ``predictions``.
    All groups are written in one pass, a block of draws in memory at a time.

    Parameters
    ----------
    file : Path
        The trace.
    density : LogDensity
        Of the model.
    data : Data
        Its splits.
    kind : str
        What `likelihood_kind` returned.
    seed : int
        Of the sample of rows.
    """
    classes = 1 if kind != "categorical" else int(data.train.y.max()) + 1
    also = [_LIKELIHOOD, *([_ELSEWHERE] if data.ood else [])]
    with open_trace(file) as trace, GroupAppender(file, "predictions", also=also) as out:
        posterior = trace["posterior"].to_dataset()
        for block in _predicted(posterior, density, data.test, kind, classes):
            out.append(block)
        for block in _likelihoods(posterior, density, data.train, kind, classes, seed):
            out.append(block, _LIKELIHOOD)
        if data.ood:
            x = torch.cat([split.x for split in data.ood.values()])
            # Their labels, if any, need not be of the model's classes: they are not asked for.
            y = data.train.y[:1].expand(len(x), *data.train.y.shape[1:])
            splits = json.dumps({name: len(split.x) for name, split in data.ood.items()})
            for block in _predicted(posterior, density, Split(x, y), kind, classes):
                out.append(block[["mean"]].assign_attrs(splits=splits), _ELSEWHERE)


def record_corrupted(file: Path, density: LogDensity, data: Data, kind: str, seed: int) -> None:
    """Add ``predictions_corrupted``: averages over draws for each corruption and severity.

    Parameters
    ----------
    file : Path
        The trace; at most 200 of its draws, evenly spaced over the chains that are not dead, are
        averaged.
    density : LogDensity
        Of the model.
    data : Data
        The test split is corrupted by each of `Data.corruptions`.
    kind : str
        What `likelihood_kind` returned.
    seed : int
        Of random corruptions.
    """
    with open_trace(file) as trace:
        posterior = without_dead_chains(trace)["posterior"].to_dataset()
        count = posterior.sizes["chain"] * posterior.sizes["draw"]
        kept = np.linspace(0, count - 1, min(count, CORRUPTED_DRAWS)).round().astype(int)
        chain, draw = np.divmod(kept, posterior.sizes["draw"])
        some = posterior.drop_vars("chain", errors="ignore").isel(
            chain=("draw", chain), draw=("draw", draw)
        )
        values = site_values(some.expand_dims("chain").load(), density)
    found = {
        name: predict_corrupted(density, values, data.test.x, data.test.y, corruption, seed)
        for name, corruption in data.corruptions.items()
    }
    variables = {}
    for field in ("log_predictive", "mean"):
        stacked = torch.stack([getattr(one, field) for one in found.values()])
        dims = ("corruption", "severity", "test", "class")[: stacked.ndim]
        variables[field] = (dims, stacked.cpu().numpy())
    group = xr.Dataset(
        variables,
        coords={"corruption": list(found), "severity": list(SEVERITIES)},
        attrs={"likelihood": kind, "draws": len(next(iter(values.values())))},
    )
    add_groups(file, {"predictions_corrupted": group})


def predict_anew(file: Path, density: LogDensity, data: Data) -> None:
    """Add to a trace of any origin what a run of ours has: predictions and test labels.

    Parameters
    ----------
    file : Path
        The trace; its ``posterior`` holds the sites of the model under their names.
    density : LogDensity
        Of the model.
    data : Data
        Its splits.

    Raises
    ------
    UserError
        If the trace lacks a site, or it has another shape.
    """
    with open_trace(file) as trace:
        posterior = trace["posterior"].to_dataset() if "posterior" in trace.children else {}
        for name, wanted in density.stored.items():
            if name not in posterior:
                raise UserError(
                    f"{file} holds no draws of the model's site '{name}': "
                    "was the trace made from another model?"
                )
            shape = posterior[name].transpose("chain", "draw", ...).shape[2:]
            if shape != tuple(wanted):
                raise UserError(
                    f"site '{name}' has shape {shape} in {file} and {tuple(wanted)} in the "
                    "model: was the trace made from another model?"
                )
    kind = likelihood_kind(density, data.test.x, data.test.y)
    truth = data.test.y.cpu().numpy()
    dims = ("test", *(f"y_dim_{axis}" for axis in range(truth.ndim - 1)))
    add_groups(file, {"predictions_constant_data": xr.Dataset({"y": (dims, truth)})})
    record_predictions(file, density, data, kind)
    if data.corruptions:
        record_corrupted(file, density, data, kind, seed=0)


def _predicted(
    posterior: xr.Dataset, density: LogDensity, split: Split, kind: str, classes: int
) -> Iterator[xr.Dataset]:
    """Predictions on a split, a block of draws at a time."""
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    row = 8 * chains * (len(split.x) * (classes + 2) + density.dim)
    step = max(1, _BLOCK_BYTES // row)
    for start in range(0, draws, step):
        block = posterior.isel(draw=slice(start, start + step)).load()
        found = predict_in_chunks(density, site_values(block, density), split.x, split.y)
        width = block.sizes["draw"]
        yield xr.Dataset(
            {
                name: (
                    ("chain", "draw", "test", "class")[: tensor.ndim + 1],
                    tensor.unflatten(0, (chains, width)).cpu().numpy(),
                )
                for name, tensor in found._asdict().items()
                if tensor is not None
            },
            coords={"chain": block["chain"], "draw": block["draw"]},
            attrs={"likelihood": kind},
        )


def _likelihoods(
    posterior: xr.Dataset, density: LogDensity, train: Split, kind: str, classes: int, seed: int
) -> Iterator[xr.Dataset]:
    """Log likelihood of training rows, a block of draws at a time."""
    room = LOG_LIKELIHOOD_VALUES // (posterior.sizes["chain"] * posterior.sizes["draw"])
    count = min(len(train.x), max(1, room))
    rows = torch.arange(len(train.x))
    if count < len(rows):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = order[:count].sort().values
    here = rows.to(train.x.device)
    chosen = Split(train.x[here], train.y[here])
    for block in _predicted(posterior, density, chosen, kind, classes):
        values = block["log_predictive"].rename(test="train").assign_coords(train=rows.numpy())
        yield xr.Dataset({"y": values}, attrs={"rows": len(train.x)})


def site_values(block: xr.Dataset, density: LogDensity) -> dict[str, Tensor]:
    """Return site values ``(sample, *shape)`` of draws in memory, chain by chain."""
    return {
        name: torch.from_numpy(block[name].transpose("chain", "draw", ...).to_numpy())
        .flatten(0, 1)
        .to(density.device, density.dtype)
        for name in density.stored
    }
