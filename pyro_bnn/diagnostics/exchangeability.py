"""Whether a sampler has mixed over the order of hidden units.

Under a prior that is i.i.d. within a layer, the posterior of a layer's units is exchangeable: the
index of the unit with the largest weight is uniform (Laurent, Aldea and Franchi 2024, corollary of
proposition 1). Independent draws therefore count each unit equally often; a chain that keeps its
units in one order does not.

Autocorrelation is that of the largest weight's value, which knows nothing of the order of units:
each chain is thinned to the effective number of draws that its values amount to. If the index
moved as freely as the value does, the thinned indices would be independent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats  # type: ignore[attr-defined]
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_distribution

from pyro_bnn.diagnostics.blocks import blocks
from pyro_bnn.diagnostics.rank_statistics import MIN_DRAWS

SIMULATIONS = 9_999

_SIMULATED_BLOCK = 2**22

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Exchangeability:
    """The test of one hidden space.

    Attributes
    ----------
    space
        Name of the dimension, such as ``h0``.
    site
        Variable whose largest entry is sought.
    counts
        How often each unit holds it, shape ``(unit,)``, over the thinned draws.
    chi2
        Pearson's statistic against the uniform distribution.
    p_value
        Share of uniform samples of this size at least as far from uniform (Monte Carlo); its
        least value is 0.0001. With independent draws it is uniform.
    p_asymptotic
        From the chi-square distribution with ``unit - 1`` degrees of freedom.
    chains, stuck
        Chains of two thinned draws or more, and how many of them never change the unit.
    """

    space: str
    site: str
    counts: Counts
    chi2: float
    p_value: float
    p_asymptotic: float
    chains: int
    stuck: int

    @property
    def draws(self) -> int:
        """Thinned draws behind the counts."""
        return int(self.counts.sum())


def exchangeability(
    trace: xr.DataTree, simulations: int = SIMULATIONS, seed: int = 0
) -> dict[str, Exchangeability]:
    """Test every hidden space of a trace.

    Parameters
    ----------
    trace
        A trace with the group ``posterior``, in which a hidden space is a dimension.
    simulations
        Uniform samples behind the p-value.
    seed
        Seed of these.

    Returns
    -------
    dict
        By hidden space; empty if the trace names none.

    Examples
    --------
    >>> weights = np.random.default_rng(0).normal(size=(4, 50, 8, 3))
    >>> posterior = xr.Dataset({"0.weight": (("chain", "draw", "h0", "x0"), weights)})
    >>> posterior["2.weight"] = (("chain", "draw", "y0", "h0"), weights[..., :2].swapaxes(2, 3))
    >>> found = exchangeability(xr.DataTree.from_dict({"posterior": posterior}))["h0"]
    >>> found.p_value > 0.01, len(found.counts), found.stuck
    (True, 8, 0)
    """
    if "posterior" not in trace.children:
        return {}
    posterior = trace["posterior"].to_dataset()
    rng = np.random.default_rng(seed)
    results = {}
    for space, site in hidden_spaces(trace).items():
        index, value = largest(posterior[site], space)
        kept = thinned(index, value)
        indices = np.concatenate(kept) if kept else np.empty(0, np.int64)
        if not len(indices):
            continue
        units = posterior.sizes[space]
        counts = np.bincount(indices, minlength=units)
        statistic, p_value, p_asymptotic = uniformity(counts, simulations, rng)
        several = [chain for chain in kept if len(chain) > 1]
        results[space] = Exchangeability(
            space=space,
            site=site,
            counts=counts,
            chi2=statistic,
            p_value=p_value,
            p_asymptotic=p_asymptotic,
            chains=len(several),
            stuck=sum(len(np.unique(chain)) == 1 for chain in several),
        )
    return results


def hidden_spaces(trace: xr.DataTree) -> dict[str, str]:
    """Find the dimensions whose units may be permuted, and a site that has each.

    Parameters
    ----------
    trace
        A trace with the group ``posterior``. Where there is a group ``symmetry``, the spaces are
        those of which it stores a permutation; otherwise, the dimensions ``h0``, ``h1``, ...
        that several variables share.

    Returns
    -------
    dict
        Space of two units or more to the first site with it and another dimension; failing that,
        to the first site with it.
    """
    posterior = trace["posterior"].to_dataset()
    holders: dict[str, list[str]] = {}
    for name, array in posterior.data_vars.items():
        for dim in array.dims:
            holders.setdefault(str(dim), []).append(str(name))
    names = [space for space in permuted_spaces(trace) if space in holders]
    if "symmetry" not in trace.children:
        names = [d for d, has in holders.items() if re.fullmatch(r"h\d+", d) and len(has) > 1]
    return {
        space: max(holders[space], key=lambda site: posterior[site].ndim > 3)
        for space in names
        if posterior.sizes[space] > 1
    }


def permuted_spaces(trace: xr.DataTree) -> Mapping[str, xr.Variable]:
    """Return the hidden spaces whose permutations the group ``symmetry`` stores.

    A permutation of the space ``h0`` is the variable ``h0 (chain, draw, h0_unit)``, or has the
    dimension ``h0`` itself; those of spaces within other spaces are left out.
    """
    if "symmetry" not in trace.children:
        return {}
    found = {}
    for name, variable in trace["symmetry"].to_dataset().variables.items():
        inner = [dim for dim in variable.dims if dim not in ("chain", "draw")]
        if len(variable.dims) == 3 and inner in ([f"{name}_unit"], [name]):
            found[str(name)] = variable
    return found


def largest(array: xr.DataArray, space: str) -> tuple[Counts, Array]:
    """Find the unit with the largest entry of a variable in each draw, and the entry.

    Parameters
    ----------
    array
        A variable with the dimensions ``chain``, ``draw`` and `space`.
    space
        The dimension.

    Returns
    -------
    index, value : numpy.ndarray
        Shape ``(chain, draw)``; the value is NaN where an entry is.
    """
    array = array.transpose("chain", "draw", space, ...)
    shape = (array.sizes["chain"], array.sizes["draw"])
    index, value = np.empty(shape, np.int64), np.empty(shape)
    for block in blocks(array):
        units = block.values.reshape(*block.values.shape[:2], array.sizes[space], -1).max(axis=-1)
        index[block.chains, block.draws] = units.argmax(axis=-1)
        value[block.chains, block.draws] = units.max(axis=-1)
    return index, value


def thinned(index: Counts, value: Array) -> list[Counts]:
    """Keep as many draws of each chain, evenly spaced, as its values are worth.

    Parameters
    ----------
    index, value
        Shape ``(chain, draw)``. Draws whose value is not finite are left out.

    Returns
    -------
    list of numpy.ndarray
        Indices that are kept, an array a chain. Chains of fewer than four draws are kept whole,
        of a constant value one draw is kept.
    """
    finite = np.isfinite(value)
    effective = finite.sum(axis=1)
    # Chains of as many finite draws at once: nearly always all of them.
    for draws in np.unique(effective[effective >= MIN_DRAWS]):
        alike = np.flatnonzero(effective == draws)
        values = np.stack([value[chain][finite[chain]] for chain in alike])
        moving = np.ptp(values, axis=1) > 0
        effective[alike[~moving]] = 1
        if moving.any():
            ess = array_stats.ess(values[moving, None], method="bulk")  # type: ignore[no-untyped-call]
            effective[alike[moving]] = np.clip(np.nan_to_num(ess, nan=1.0), 1, draws)
    kept = []
    for chain in np.flatnonzero(effective):
        usable = index[chain][finite[chain]]
        places = (np.arange(effective[chain]) + 0.5) * len(usable) / effective[chain]
        kept.append(usable[places.astype(np.int64)])
    return kept


def uniformity(
    counts: Counts, simulations: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Test whether counts come from a uniform distribution.

    Parameters
    ----------
    counts
        Shape ``(unit,)``, of one draw at least.
    simulations
        Uniform samples of the same size. Permuting the units of each draw at random gives exactly
        these, so the p-value is that of the permutation test.
    rng
        Of the simulations.

    Returns
    -------
    chi2, p_value, p_asymptotic : float
        Pearson's statistic, its Monte-Carlo p-value and that of the chi-square distribution.
    """
    total, units = int(counts.sum()), len(counts)
    # For equal expectations the statistic grows with the sum of squares, a whole number.
    observed = int(np.sum(counts.astype(np.int64) ** 2))
    step = max(1, _SIMULATED_BLOCK // units)
    extreme = 0
    for start in range(0, simulations, step):
        size = min(step, simulations - start)
        simulated = rng.multinomial(total, np.full(units, 1 / units), size=size)
        extreme += int(np.sum(np.sum(simulated**2, axis=1) >= observed))
    statistic = units * observed / total - total
    p_asymptotic = float(chi2_distribution.sf(statistic, units - 1))
    return statistic, (1 + extreme) / (1 + simulations), p_asymptotic
