"""What the symmetry group says about any posterior, exactly and without data.

For a vector field ``v`` along which the likelihood does not change, and any differentiable
prior ``pi``, integration by parts gives ``E[v . grad log pi] = -div v`` under the posterior
(Stein's identity). With a normal prior and the scaling of a hidden unit it is a virial
identity: ``E[|in|^2 / s_in^2 - |out|^2 / s_out^2] = m - n`` for ``m`` incoming and ``n``
outgoing weights. A softmax leaves the mean of the output weights over the classes to the prior:
there ``E[C mean^2 / s^2] = 1``. Draws that violate an identity are not from the posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from arviz_stats.base.array import array_stats
from numpy.typing import NDArray
from torch import Tensor

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.group import Family, SymmetryGroup
from pyro_bnn.symmetry.rows import Occurrence, entries, rows

Prior = Mapping[str, Any] | Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Identity:
    """One identity, unit by unit.

    Attributes
    ----------
    name : str
    value : ndarray
        Average over the draws, ``(units,)``.
    expectation : ndarray
        What it is under the posterior, ``(units,)``.
    error : ndarray
        Monte-Carlo standard error of the average, ``(units,)``.
    pooled : tuple of float
        Average over the units, its expectation and its standard error.
    """

    name: str
    value: NDArray[np.float64]
    expectation: NDArray[np.float64]
    error: NDArray[np.float64]
    pooled: tuple[float, float, float]

    @property
    def z(self) -> NDArray[np.float64]:
        """Distance from the expectation in standard errors, ``(units,)``."""
        return (self.value - self.expectation) / self.error

    @property
    def pooled_z(self) -> float:
        """Distance of the average over the units in standard errors."""
        value, expectation, error = self.pooled
        return (value - expectation) / error


def identities(
    group: SymmetryGroup, params: Mapping[str, Any], prior: Prior
) -> dict[str, Identity]:
    """Compare draws with the identities that the posterior satisfies.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor or ndarray
        ``(chain, draw, *shape)``, or ``(draw, *shape)``, for each site.
    prior : dict or callable
        Standard deviations of normal priors centred at zero, one for each site (numbers, or
        arrays that broadcast against the site); or a function from a dict of
        ``(batch, *shape)`` tensors to the log prior ``(batch,)``, differentiable.

    Returns
    -------
    dict of str to Identity
        ``virial`` of each family of scales (``stein`` for a prior given as a function), and
        ``output shift`` of each site that is free up to a common shift (normal priors only).

    Raises
    ------
    UserError
        If a site is missing, or a deviation.

    Examples
    --------
    >>> from torch import nn
    >>> from pyro_bnn.symmetry import discover
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> group = discover(net, torch.zeros(5, 4))
    >>> draws = {name: torch.randn(1000, *p.shape) for name, p in net.named_parameters()}
    >>> found = identities(group, draws, {name: 1.0 for name in draws})
    >>> found["virial of h0"].expectation
    array([2., 2., 2., 2., 2., 2., 2., 2.])
    """
    draws, chains = _draws(group, params)
    score = _score(group, draws, prior)
    label = "stein" if callable(prior) else "virial"
    result = {}
    for family in group.kind("scale").values():
        values = unit_sums(group, family, {s: -draws[s] * score[s] for s in group.shapes})
        expectation = unit_sums(
            group, family, {s: torch.ones_like(draws[s][:1]) for s in group.shapes}
        )[0]
        name = f"{label} of {family.space or family.name}"
        result[name] = _compared(name, values, expectation, chains)
    if not callable(prior):
        for site, axis in group.shifts.items():
            count = group.shapes[site][axis]
            deviation = _deviation(prior, site).to(draws[site])
            scaled = (draws[site] / deviation).mean(axis + 1)
            values = count * scaled.reshape(scaled.shape[0], -1).square()
            name = f"output shift of {site}"
            result[name] = _compared(name, values, torch.ones(values.shape[1]), chains)
    return result


def unit_sums(group: SymmetryGroup, family: Family, values: Mapping[str, Tensor]) -> Tensor:
    """Sum values over the weights that each unit of a family scales, times the exponents.

    Parameters
    ----------
    group : SymmetryGroup
    family : Family
    values : dict of str to Tensor
        ``(batch, *shape)`` for each site.

    Returns
    -------
    Tensor
        ``(batch, size)``.
    """
    batch = next(iter(values.values())).shape[0]
    total = torch.zeros(batch, family.size, dtype=torch.float64)
    for term in family.terms:
        if term.site in group.statistics:
            continue
        if term.axis < 0:
            table = entries(group, values[term.site], term.site, term.block)
        else:
            where = Occurrence(term.site, term.block, term.axis, term.place, frozenset())
            table = rows(group, values, where)
        total = total + term.exponent * table.double().sum(-1)
    return total


def _draws(group: SymmetryGroup, params: Mapping[str, Any]) -> tuple[dict[str, Tensor], int]:
    """Return draws as ``(chain * draw, *shape)`` in float64, and the number of chains."""
    result, chains = {}, 1
    for site, shape in group.shapes.items():
        if site not in params:
            raise UserError(f"the draws lack site {site!r}, which the network has")
        value = torch.as_tensor(
            np.asarray(params[site]) if not isinstance(params[site], Tensor) else params[site]
        ).double()
        leading = value.ndim - len(shape)
        if leading not in (1, 2) or tuple(value.shape[leading:]) != shape:
            raise UserError(
                f"site {site!r} has shape {tuple(value.shape)}: expected (chain, draw, ...) or "
                f"(draw, ...) before {shape}"
            )
        chains = value.shape[0] if leading == 2 else 1
        result[site] = value.reshape(-1, *shape)
    return result, chains


def _score(group: SymmetryGroup, draws: Mapping[str, Tensor], prior: Prior) -> dict[str, Tensor]:
    """Return the gradient of the log prior by every site."""
    if callable(prior):
        leaves = {site: value.clone().requires_grad_() for site, value in draws.items()}
        gradients = torch.autograd.grad(
            prior(leaves).sum(), list(leaves.values()), allow_unused=True
        )
        return {
            site: torch.zeros_like(draws[site]) if g is None else g
            for site, g in zip(leaves, gradients, strict=True)
        }
    scaled = {t.site for f in group.kind("scale").values() for t in f.terms}
    return {
        site: -value / _deviation(prior, site).to(value).square()
        if site in scaled
        else torch.zeros_like(value)
        for site, value in draws.items()
    }


def _deviation(prior: Mapping[str, Any], site: str) -> Tensor:
    if site not in prior:
        raise UserError(f"the prior lacks the standard deviation of site {site!r}")
    return torch.as_tensor(prior[site], dtype=torch.float64)


def _compared(name: str, values: Tensor, expectation: Tensor, chains: int) -> Identity:
    """Average a statistic ``(chain * draw, units)`` and find its standard error."""
    table = values.reshape(chains, -1, values.shape[-1]).numpy()
    pooled = table.mean(-1, keepdims=True)
    error, pooled_error = _standard_error(table), _standard_error(pooled)
    expected = expectation.double().numpy()
    return Identity(
        name,
        table.mean((0, 1)),
        expected,
        error,
        (float(pooled.mean()), float(expected.mean()), float(pooled_error[0])),
    )


def _standard_error(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Monte-Carlo standard error of the mean, ``(chain, draw, units)`` in."""
    mcse: Callable[..., Any] = array_stats.mcse
    return np.atleast_1d(np.asarray(mcse(table, chain_axis=0, draw_axis=1, method="mean")))
