"""Loss and density along the line between two chains, recorded where the model is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pyro_bnn.diagnostics.barrier import GROUP, Line, along
from pyro_bnn.halving import INPUTS_AT_ONCE, Halving
from pyro_bnn.infer.running_statistics import with_statistics
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.rows import Arguments
from pyro_bnn.symmetry import Quotient
from pyro_bnn.symmetry.null import prior_draws
from pyro_bnn.trace import add_groups, open_trace
from pyro_bnn.trace.dead_chains import without_dead_chains

__all__ = ["record_line"]

PAIRS = 4
"""Lines between draws of the prior."""

_SPACES = {"weight": "posterior", "canonical": "canonical_posterior"}
_PRIOR = 16  # draws in each of two chains, where draws are matched to one another
_MOST_ROWS = 4096

Sites = Mapping[str, Tensor]
Array = NDArray[np.float64]


def record_line(file: Path, density: LogDensity, quotient: Quotient) -> None:
    """Add ``mode_line``: from the last draw of one chain to that of another, raw and canonical.

    The chains are the first and the last that are not dead; the line is straight in unconstrained
    space. Beside it stands the control ``null_loss``: the loss along the lines between four pairs
    of draws from the prior, raw and put through the same quotient. Nothing is added to a trace of
    one chain, or where those draws are not finite. Of more than 4,096 training rows, so many drawn
    at random stand for all: loss and density at 25 points of ten lines are 500 passes over them.

    Parameters
    ----------
    file : Path
        The trace.
    density : LogDensity
        Of the model, on its training data.
    quotient : Quotient
        What made the canonical draws of the trace.
    """
    density = _of_few_rows(density)
    lines: dict[str, Line] = {}
    others: dict[str, Tensor] = {}
    with open_trace(file) as whole, torch.no_grad():
        trace = without_dead_chains(whole)
        for space, group in _SPACES.items():
            if group not in trace.children or trace[group].sizes["chain"] < 2:
                return
            ends = trace[group].to_dataset().isel(chain=[0, -1], draw=-1).load()
            values = {name: torch.from_numpy(ends[name].to_numpy()) for name in density.sites}
            if not all(bool(value.isfinite().all()) for value in values.values()):
                return
            lines[space] = _line(density, values)
            others = {n: v for n, v in values.items() if n not in quotient.group.shapes}
        null = _null(density, quotient, others)
    found = xr.Dataset(
        {
            name: (("space", "at"), np.stack([getattr(line, name) for line in lines.values()]))
            for name in ("loss", "log_density")
        },
        coords={"space": list(lines), "at": lines["weight"].at},
    )
    if null is not None:
        found["null_loss"] = (("space", "pair", "at"), null)
    add_groups(file, {GROUP: found})


def _null(density: LogDensity, quotient: Quotient, others: Sites) -> Array | None:
    """Return the loss between draws of the prior, ``(space, pair, at)``; None without a prior."""
    matched = quotient.permutation not in (None, "sort")
    each = _PRIOR if matched else PAIRS
    draws = prior_draws(density, quotient.group, 2 * each)
    if draws is None:
        return None
    canonical = quotient.again().reduce(draws, chains=2).params
    losses = []
    for params in (draws, canonical):
        for pair in range(PAIRS):
            both = [each - 1 - pair, 2 * each - 1 - pair]
            ends = {name: params[name][both] for name in quotient.group.shapes}
            # What is no weight of the network, as a noise, is what it was in the draws.
            losses.append(_line(density, {**others, **ends}).loss)
    return np.stack(losses).reshape(2, PAIRS, -1)


def _of_few_rows(density: LogDensity) -> LogDensity:
    """Return a density that estimates the likelihood of many rows from some, in chunks of them."""
    whole = Arguments(density.args, density.kwargs)
    # What the model was run on says whether it runs on fewer rows.
    if density.rows <= _MOST_ROWS or density.some.longest() >= density.rows:
        return density
    order = torch.randperm(density.rows, generator=torch.Generator().manual_seed(0))
    rows = order[:_MOST_ROWS].sort().values.to(density.device)
    some = whole.choose(density.rows, lambda leaf: leaf[rows])
    row = sum(tensor[0].numel() for tensor in density.row_data())
    temperature = density.likelihood_temperature * len(rows) / density.rows
    return (
        LogDensity(density.model, *some.args, **some.kwargs)
        .tempered(likelihood=temperature, posterior=density.posterior_temperature)
        .in_batches(max(1, density.rows // len(density.batches())))
        .chunked(max(1, INPUTS_AT_ONCE // row))
    )


def _line(density: LogDensity, ends: Sites) -> Line:
    """Evaluate along the line between two points, given as sites ``(2, *site)``."""
    on_device = {name: ends[name].to(density.device) for name in density.sites}
    position = density.unconstrain(on_device).double().cpu().numpy()
    inputs = sum(one.numel() for one in density.args if isinstance(one, Tensor))
    inputs = inputs // max(1, len(density.chunks()))
    together = Halving(max(1, INPUTS_AT_ONCE // max(1, inputs)), "lines", "points")

    def evaluate(points: dict[str, Array]) -> tuple[Array, Array]:
        whole = torch.from_numpy(points["position"]).to(density.dtype)

        def some(span: slice) -> Tensor:
            part = whole[span].to(density.device)
            held = with_statistics(density, density.constrain(part))
            loss = -density.log_likelihood(part, None, held) / max(1, density.rows)
            return torch.stack([loss, -density.potential(part, None, held)]).cpu()

        loss, log_density = torch.cat([*together.run(some, len(whole))], 1).double().numpy()
        return loss, log_density

    return along({"position": position[0]}, {"position": position[1]}, evaluate)
