"""What the sampler says of itself: divergences, energy, step size, time and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray

from pyro_bnn.diagnostics.draws import finite_draws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sampler:
    """The sampler statistics of a trace.

    Attributes
    ----------
    chains, draws
        Size of the sample; 0 if the trace has no draws.
    weights
        Scalars of the posterior a draw.
    nonfinite
        Draws of the posterior with a NaN or infinite number in them.
    divergences
        Divergent transitions of each chain, shape ``(chain,)``; None if not recorded.
    acceptance
        Mean acceptance rate of each chain, shape ``(chain,)``; None if not recorded.
    bfmi
        Bayesian fraction of missing information of each chain; None if not recorded.
    step_size, tree_depth, steps
        Mean step size, deepest tree and mean number of leapfrog steps a draw; NaN if unknown.
    seconds_warmup, seconds_sampling, gradients
        What the run cost; NaN if the trace does not say.
    """

    chains: int
    draws: int
    weights: int
    nonfinite: int
    divergences: NDArray[np.int64] | None
    acceptance: Array | None
    bfmi: Array | None
    step_size: float
    tree_depth: float
    steps: float
    seconds_warmup: float
    seconds_sampling: float
    gradients: float

    @property
    def seconds(self) -> float:
        """Warm-up and sampling together; NaN if the trace says neither."""
        known = [s for s in (self.seconds_warmup, self.seconds_sampling) if not math.isnan(s)]
        return sum(known) if known else math.nan


def sampler(trace: xr.DataTree) -> Sampler:
    """Collect the sampler statistics.

    Parameters
    ----------
    trace
        A trace; ``sample_stats`` and ``posterior`` may be missing.

    Returns
    -------
    Sampler
        With None or NaN in place of what was not recorded.
    """
    stats = trace["sample_stats"].to_dataset() if "sample_stats" in trace.children else xr.Dataset()
    posterior = trace["posterior"].to_dataset() if "posterior" in trace.children else xr.Dataset()
    sizes = {**stats.sizes, **posterior.sizes}
    diverging = _values(stats, "diverging")
    acceptance = _values(stats, "acceptance_rate")
    energy = _values(stats, "energy")
    depth = _values(stats, "tree_depth")
    return Sampler(
        chains=int(sizes.get("chain", 0)),
        draws=int(sizes.get("draw", 0)),
        weights=sum(math.prod(v.shape) // _samples(v) for v in posterior.data_vars.values()),
        nonfinite=_count_nonfinite(posterior),
        divergences=None if diverging is None else (diverging > 0).sum(axis=1).astype(np.int64),
        acceptance=None if acceptance is None else acceptance.mean(axis=1),
        bfmi=_bfmi(energy),
        step_size=_mean(_values(stats, "step_size")),
        tree_depth=math.nan if depth is None else float(depth.max()),
        steps=_mean(_values(stats, "n_steps")),
        seconds_warmup=_number(trace.attrs, "seconds_warmup"),
        seconds_sampling=_number(trace.attrs, "seconds_sampling"),
        gradients=_number(trace.attrs, "gradients"),
    )


def _values(stats: xr.Dataset, name: str) -> Array | None:
    if name not in stats or not stats[name].size:
        return None
    values = stats[name].transpose("chain", "draw", ...).to_numpy()
    return np.asarray(values, dtype=np.float64)


def _bfmi(energy: Array | None) -> Array | None:
    if energy is None or energy.shape[1] < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        bfmi = array_stats.bfmi(energy)  # type: ignore[no-untyped-call]
    return np.asarray(bfmi, dtype=np.float64).reshape(-1)


def _count_nonfinite(posterior: xr.Dataset) -> int:
    return int((~finite_draws(posterior)).sum()) if posterior.data_vars else 0


def _samples(array: xr.DataArray) -> int:
    return max(1, array.sizes["chain"] * array.sizes["draw"])


def _mean(values: Array | None) -> float:
    return math.nan if values is None or values.size == 0 else float(values.mean())


def _number(attrs: dict[Any, Any], name: str) -> float:
    try:
        return float(attrs.get(name, math.nan))
    except (TypeError, ValueError):
        return math.nan
