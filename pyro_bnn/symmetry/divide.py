"""The quotient of a trace: blocks of draws in, canonical draws and group elements out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.activation_matching import activations
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.labelled import (
    SAMPLE_DIMS,
    posterior_of,
    slices,
    tensors,
)
from pyro_bnn.symmetry.null import prior_draws
from pyro_bnn.symmetry.reduce import Reduce, canonical_of, reduce_block
from pyro_bnn.symmetry.table import left_open, lines
from pyro_bnn.symmetry.tally import Tally
from pyro_bnn.tasks import Map
from pyro_bnn.trace import GroupAppender, encode_attrs, open_trace, site_dataset

if TYPE_CHECKING:
    from pyro_bnn.symmetry.quotient import Quotient

CHECKED_DRAWS = 8
PRIOR_DRAWS = 100
LARGEST_ERROR = 1e-8


def apply(
    quotient: Quotient,
    trace: xr.DataTree | str | Path,
    out: str | Path | None,
    source: Any,
    mapped: Map,
) -> xr.DataTree | Path:
    """Add the groups ``canonical_posterior`` and ``symmetry`` to a trace, and the null control."""
    quotient = seeing(quotient, source)
    if isinstance(trace, xr.DataTree):
        work = Work(quotient, posterior_of(trace, quotient.group), source, mapped)
        blocks = list(work.blocks())
        prior = list(work.prior())
        result = trace.copy()
        found = {"canonical_posterior": [pair[0] for pair in blocks]}
        found |= {"symmetry": [pair[1] for pair in blocks], "canonical_prior": prior}
        for name, pieces in found.items():
            if pieces:
                joined = xr.concat(pieces, "draw", combine_attrs="override")
                result[name] = xr.DataTree(joined)
            elif name in result.children:
                del result[name]
        result["symmetry"].attrs.update(encode_attrs(work.attributes()))
        return result
    path = Path(trace)
    path = path / "trace.nc" if path.is_dir() else path
    if out is not None:
        shutil.copyfile(path, out)
        path = Path(out)
    with open_trace(path) as opened:
        work = Work(quotient, posterior_of(opened, quotient.group), source, mapped)
        groups = ("symmetry", "canonical_prior")
        with GroupAppender(path, "canonical_posterior", also=groups) as appender:
            for canonical, symmetry in work.blocks():
                appender.append(canonical)
                appender.append(symmetry, group="symmetry")
            for block in work.prior():
                appender.append(block, group="canonical_prior")
            appender.set_attrs(work.attributes(), group="symmetry")
    return path


def seeing(quotient: Quotient, source: Any) -> Quotient:
    """Let activation matching see the network."""
    blind = quotient.permutation == "activation-matching" and quotient.activations is None
    if blind and source is not None:
        return quotient.again(activations=activations(quotient.group, source))
    return quotient


class Work:
    """One pass of a quotient over a posterior, and over draws from the prior.

    Parameters
    ----------
    quotient : Quotient
    posterior : xarray.Dataset
    source : LogDensity, optional
        The network.
    mapped : callable
        ``mapped(function, tasks)``, as `map`, for the blocks of draws.
    """

    def __init__(
        self, quotient: Quotient, posterior: xr.Dataset, source: Any, mapped: Map = map
    ) -> None:
        self.quotient, self.posterior, self.source = quotient, posterior, source
        self.mapped = mapped
        self.tally = Tally(quotient.group)
        self.prior_draws = 0
        self.error: float | None = None
        if source is not None:
            self.error = function_error(quotient.again(), posterior, source)

    def blocks(self) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
        """Run through the posterior in blocks of draws, each a task."""
        for canonical, symmetry in self._reduced():
            self.tally.add(*canonical_of(self.quotient, symmetry))
            yield canonical, symmetry

    def _reduced(self) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
        cut = [self.posterior.isel(draw=block) for block in slices(self.posterior)]
        matched = self.quotient.permutation not in (None, "sort")
        if matched and self.quotient.reference == "previous":
            last = None
            for block in cut:
                canonical, symmetry, last = reduce_block(self.quotient, block, last)
                yield canonical, symmetry
            return
        # What draws are matched to is learnt from the first block, before the quotient travels.
        ahead = 1 if matched else 0
        reduce = Reduce(self.quotient)
        yield from map(reduce, cut[:ahead])
        yield from self.mapped(reduce, cut[ahead:])

    def prior(self) -> Iterator[xr.Dataset]:
        """Put draws from the prior through the same procedure, where draws were matched."""
        if self.quotient.permutation in (None, "sort") or self.source is None:
            return
        group, chains = self.quotient.group, self.posterior.sizes["chain"]
        twin, last = self.quotient.again(), None
        wanted = self.posterior.isel(draw=slice(0, PRIOR_DRAWS))
        dims = {
            site: [str(d) for d in self.posterior[site].dims if d not in SAMPLE_DIMS]
            for site in group.shapes
        }
        for seed, block in enumerate(slices(wanted)):
            draws = prior_draws(self.source, group, chains * (block.stop - block.start), seed)
            if draws is None:
                return
            result = twin.reduce(draws, chains, last)
            last = result.last
            values = {
                site: result.params[site].reshape(chains, -1, *shape).numpy()
                for site, shape in group.shapes.items()
            }
            self.prior_draws = block.stop
            yield site_dataset(values, dims, draw_start=block.start)

    def attributes(self) -> dict[str, Any]:
        """Return what is recorded of the pass: the group, the choices, what they did."""
        quotient = self.quotient
        group, reference = quotient.group, quotient.reference
        matched = quotient.permutation not in (None, "sort")
        ordered = quotient.permutation not in (None, "weight-matching")
        found = {
            "group": group.to_json(),
            "table": "\n".join(lines(group, measure=False)),
            "left_open": "; ".join(left_open(group)) or "nothing that was found",
            "log_order": group.log_order,
            "scale_dim": group.scale_dim,
            "scaling": quotient.scaling or "none",
            "sign": "positive" if quotient.sign else "none",
            "permutation": quotient.permutation or "none",
            "sort_rule": quotient.rule if ordered else "none",
            "reference": (reference if isinstance(reference, str) else "given")
            if matched
            else "none",
            **self.tally.attributes(),
        }
        if matched:
            found["null_control"] = (
                f"canonical_prior: {self.prior_draws} draws from the prior in each chain, put "
                "through the same procedure"
                if self.prior_draws
                else "left out: without a Pyro model there is no prior to draw from"
            )
        if self.error is not None:
            found["function_error"] = self.error
        return found


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return the largest change of an output, relative to its largest finite number.

    What is not finite before is to be the same after; it is an infinite change where it is not.

    Examples
    --------
    >>> before = torch.tensor([1.0, float("inf"), float("nan")])
    >>> relative_change(before, before), relative_change(before, torch.tensor([float("nan")]))
    (0.0, inf)
    """
    same = (before == after) | (before.isnan() & after.isnan())
    scale = before.abs().nan_to_num(0, posinf=0).max().clamp_min(torch.finfo(before.dtype).tiny)
    change = ((after - before).abs() / scale).nan_to_num(torch.inf)
    return float(torch.where(same, 0.0, change).max())


def function_error(quotient: Quotient, posterior: xr.Dataset, source: Any) -> float:
    """Return the largest relative change of the network's output over a sample of draws.

    They are spread over all chains: some of these may have died. NaN if none is finite.

    Raises
    ------
    UserError
        If the canonical draws are not the same function: the group is not that of `source`.
    """
    read = computation(source)
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    last = chains * draws - 1
    chosen = sorted({round(k * last / (CHECKED_DRAWS - 1)) for k in range(CHECKED_DRAWS)})
    found = [
        tensors(posterior.isel(chain=[k // draws], draw=[k % draws]).compute(), quotient.group)
        for k in chosen
    ]
    wide = {site: torch.cat([one[site] for one in found]).double() for site in found[0]}
    result = quotient.reduce(wide)
    if bool(result.nan.all()):
        return math.nan
    worst = 0.0
    for k in (~result.nan).nonzero().flatten().tolist():
        before = read({site: value[k] for site, value in wide.items()})
        after = read({site: result.params[site][k] for site in wide})
        worst = max(worst, relative_change(before, after))
    if not worst <= LARGEST_ERROR:
        raise UserError(
            f"the canonical draws change the output of the network by {worst:.1e} (relative): "
            "the symmetry group was discovered on another network."
        )
    return worst
