"""The heavy reductions cut into tasks that others can compute: pairs of members, and MMD.

Both are sums over something long, inputs or weights. A task opens the traces itself, from the
files, and returns its part of the sum; parts are added in order, so that the result is the same
whoever computed them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pyro_bnn.diagnostics.diversity import MAX_MEMBERS, Diversity, pairwise, prediction_blocks
from pyro_bnn.diagnostics.draws import Draws, chosen, usable_draws
from pyro_bnn.diagnostics.quality.distances import Distances
from pyro_bnn.diagnostics.quality.posterior import refuse_other_model
from pyro_bnn.errors import UserError
from pyro_bnn.trace import Collection, open_trace
from pyro_bnn.trace.collection import is_collection

__all__ = ["distances_in_tasks", "diversity_in_tasks"]

TASK_INPUTS = 512
"""Inputs of one task."""

_BLOCK_BYTES = 2**25

Source = str | Collection
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def diversity_in_tasks(
    trace: str | Path,
    group: str = "predictions",
    *,
    max_members: int = MAX_MEMBERS,
    mapped: Map = map,
) -> Diversity | None:
    """Compare every pair of draws by what they predict, 512 inputs a task.

    Parameters
    ----------
    trace : path
        What `pyro_bnn.trace.open_trace` opens, on a file system that all workers see.
    group : str
        ``"predictions"`` or ``"predictions_ood"``.
    max_members : int
        Of more draws, so many are taken, evenly spaced. Draws with NaN are left out.
    mapped : callable
        ``mapped(function, tasks)``, as `map` or `pyro_bnn.infer.distributed.Scheduler.map`.

    Returns
    -------
    Diversity or None
        As `pyro_bnn.diagnostics.diversity.diversity` does, to rounding.
    """
    source = _verified(trace)
    with _opened(source) as tree:
        if group not in tree.children or "mean" not in tree[group]:
            return None
        dataset = tree[group].to_dataset()[["mean"]]
        members = usable_draws(dataset).spaced(max_members)
        inputs = dataset.sizes["test"]
        ndim = dataset["mean"].ndim
        kind = str(dataset.attrs.get("likelihood", "categorical" if ndim == 4 else "continuous"))
    if len(members) < 2:
        return None
    starts = range(0, inputs, TASK_INPUTS)
    tasks = [slice(start, min(start + TASK_INPUTS, inputs)) for start in starts]
    sums: dict[str, Any] = {}
    for rows, part in zip(tasks, mapped(_Pairs(source, group, members, kind), tasks), strict=True):
        for name, values in part.items():
            sums[name] = sums.get(name, 0.0) + values * (rows.stop - rows.start)
    first, second = np.triu_indices(len(members), 1)
    return Diversity(
        members=len(members),
        inputs=inputs,
        mutual_information=_mean(sums, "mutual_information", inputs),
        disagreement=_mean(sums, "disagreement", inputs),
        distance=sums["distance"] / inputs,
        same_chain=members.chain[first] == members.chain[second],
    )


def distances_in_tasks(
    trace: str | Path,
    reference: str | Path,
    group: str = "posterior",
    *,
    samples: int = 1_000,
    mapped: Map = map,
) -> Distances:
    """Measure the distances between the draws of two traces, a site a task; for `mmd`.

    Parameters
    ----------
    trace, reference : path
        Traces or collections of one model, on a file system that all workers see.
    group : str
        ``"posterior"`` or ``"canonical_posterior"``.
    samples : int
        Draws of each at most, evenly spaced. Those of each have to be independent.
    mapped : callable
        See `diversity_in_tasks`.

    Returns
    -------
    Distances
        In memory twice: those of a site, and their sum.

    Raises
    ------
    UserError
        If one has no such group, or they are of different models.
    """
    picks = []
    sources = _verified(trace), _verified(reference)
    with _opened(sources[0]) as first, _opened(sources[1]) as second:
        for path, tree in ((trace, first), (reference, second)):
            if group not in tree.children:
                raise UserError(f"{path} has no group '{group}': there is nothing to compare")
            picks.append(usable_draws(tree[group].to_dataset()).spaced(samples))
        refuse_other_model(first[group].to_dataset(), second[group].to_dataset())
        sites = [str(name) for name in first[group].data_vars]
    total: Distances | None = None
    for part in mapped(_Site(sources, group, (picks[0], picks[1])), sites):
        total = part if total is None else total + part
    assert total is not None
    return total


@dataclass(frozen=True)
class _Pairs:
    """Compares all pairs on a range of inputs."""

    source: Source
    group: str
    members: Draws
    kind: str

    def __call__(self, rows: slice) -> dict[str, Any]:
        with _opened(self.source) as tree:
            mean = tree[self.group].to_dataset()["mean"].transpose("chain", "draw", "test", ...)
            blocks = prediction_blocks(mean.isel(test=rows), self.members, self.kind)
            return dict(pairwise(blocks, self.kind != "continuous", threads=1))


@dataclass(frozen=True)
class _Site:
    """Measures the distances that are due to one site."""

    sources: tuple[Source, Source]
    group: str
    picks: tuple[Draws, Draws]

    def __call__(self, site: str) -> Distances:
        total: Distances | None = None
        with _opened(self.sources[0]) as first, _opened(self.sources[1]) as second:
            arrays = (tree[self.group].to_dataset()[site] for tree in (first, second))
            parts = (
                chosen(array, pick, _BLOCK_BYTES)
                for array, pick in zip(arrays, self.picks, strict=True)
            )
            for values in zip(*parts, strict=True):
                x, y = (torch.from_numpy(np.asarray(v, np.float64)) for v in values)
                new = Distances.of(x, y)
                total = new if total is None else total + new
        assert total is not None
        return total


def _verified(path: str | Path) -> Source:
    """Verify a collection once, here; tasks get what was found whole."""
    return Collection.open(path) if is_collection(path) else str(Path(path).resolve())


def _opened(source: Source) -> xr.DataTree:
    return open_trace(source, None) if isinstance(source, str) else source.datatree(None)


def _mean(sums: dict[str, Any], name: str, inputs: int) -> Any:
    return sums[name] / inputs if name in sums else None
