"""Running statistics of draws: those that the training rows have under each draw's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from pyro_bnn.halving import INPUTS_AT_ONCE, Halving
from pyro_bnn.handlers import batchable, run_model
from pyro_bnn.logdensity import LogDensity

__all__ = ["with_statistics"]


def with_statistics(density: LogDensity, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add to draws the running statistics of their networks.

    All training rows go through each network once more, in batches of nearly equal size, and the
    statistics of the batches are averaged, as ``nn.BatchNorm1d(momentum=None)`` does: the pass
    that SWAG needs after each draw (Maddox et al. 2019, section 3.3), and any other guide whose
    draws have weights that were not trained. Rows are taken as they are, without augmentation.

    Parameters
    ----------
    density : LogDensity
        Its data are the training rows; `LogDensity.in_batches` says how many a batch has.
    values : mapping of str to Tensor
        Constrained site values ``(draw, *shape)``.

    Returns
    -------
    dict of str to Tensor
        The same with the statistics ``(draw, *shape)`` after them, if the model has any.
    """
    if not density.statistics:
        return dict(values)
    names = tuple(density.sites)
    batches = density.batches()

    def of_batch(chosen: Mapping[str, Tensor], rows: Tensor | None) -> dict[str, Tensor]:
        args, kwargs, _ = density.minibatch(rows)

        def one(point: Mapping[str, Tensor]) -> dict[str, Tensor]:
            trace = run_model(density.model, point, args, kwargs, rows)
            nodes: Mapping[str, Any] = trace.nodes
            return {name: nodes[name]["value"] for name in density.statistics}

        found: dict[str, Tensor] = vmap(one)(chosen)
        return found

    def of(block: slice) -> dict[str, Tensor]:
        chosen = {name: values[name][block] for name in names}
        total: dict[str, Tensor] = {}
        for rows in batches:
            found = of_batch(chosen, rows)
            total = {n: total[n] + v if total else v for n, v in found.items()}
        return {name: value / len(batches) for name, value in total.items()}

    row = sum(tensor[0].numel() for tensor in density.row_data()) if density.rows else 1
    largest = max(1 if rows is None else len(rows) for rows in batches)
    draws = Halving(max(1, INPUTS_AT_ONCE // (row * largest)), "running statistics", "draws")
    with batchable(), torch.no_grad():
        parts = list(draws.run(of, len(values[names[0]])))
    joined = {name: torch.cat([part[name] for part in parts]) for name in density.statistics}
    return {**{name: values[name] for name in names}, **joined}
