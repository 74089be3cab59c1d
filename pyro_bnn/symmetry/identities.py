"""What the symmetry group says about any posterior, exactly and without data.

For a vector field ``v`` along which the likelihood does not change, and any differentiable
prior ``pi``, integration by parts gives ``E[v . grad log pi] = -div v`` under the posterior
(Stein's identity). With a normal prior and the scaling of a hidden unit it is a virial
identity: ``E[|in|^2 / s_in^2 - |out|^2 / s_out^2] = m - n`` for ``m`` incoming and ``n``
outgoing weights. A softmax leaves the mean of the output weights over the classes to the prior:
there ``E[C mean^2 / s^2] = 1``. And where the prior does not tell the units of a layer apart,
each is as often the extreme one. Draws that violate an identity are not from the posterior.
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
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.prior_score import PriorScore
from pyro_bnn.symmetry.statements import Params, Statement, statements

__all__ = ["Identity", "compared", "identities"]

FEWEST_DRAWS = 4

Prior = Mapping[str, Any] | Callable[[Params], Tensor] | LogDensity


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
        Monte-Carlo standard error of the average, ``(units,)``: from the effective sample size
        of the chains, or from the spread of their means where they have few draws each.
    pooled : tuple of float
        Average over the units, its expectation and its standard error. Of an exchangeability:
        the mean place of the extreme unit, from 0 to 1.
    """

    name: str
    value: NDArray[np.float64]
    expectation: NDArray[np.float64]
    error: NDArray[np.float64]
    pooled: tuple[float, float, float]

    @property
    def z(self) -> NDArray[np.float64]:
        """Distance from the expectation in standard errors, ``(units,)``."""
        return _in_errors(self.value - self.expectation, self.error)

    @property
    def pooled_z(self) -> float:
        """Distance of the average over the units in standard errors."""
        value, expectation, error = self.pooled
        return float(_in_errors(np.asarray(value - expectation), np.asarray(error)))


def identities(
    group: SymmetryGroup, params: Mapping[str, Any], prior: Prior
) -> dict[str, Identity]:
    """Compare draws with the identities that the posterior satisfies.

    Parameters
    ----------
    group : SymmetryGroup
    params : dict of str to Tensor or ndarray
        ``(chain, draw, *shape)``, or ``(draw, *shape)``, for each site.
    prior : LogDensity, dict or callable
        The density, whose model knows its prior and which knows its temperature; or standard
        deviations of normal priors centred at zero, one for each site (numbers, or arrays that
        broadcast against the site); or a function from a dict of ``(batch, *shape)`` tensors to
        the log prior ``(batch,)``, differentiable.

    Returns
    -------
    dict of str to Identity
        ``virial`` of each family of scales (``stein`` where the prior is not normal or given as
        a function), ``output shift`` of each site that is free up to a common shift, and
        ``exchangeability`` of the units of each space that the prior does not tell apart: how
        often each is the one of largest norm.

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
    if isinstance(prior, LogDensity):
        of_density = PriorScore(prior)
        score, normal = of_density(draws), of_density.normal
    elif callable(prior):
        score, normal = _gradient(prior, draws), frozenset[str]()
    else:
        score, normal = _normal_score(group, draws, prior), frozenset(group.shapes)
    result = {}
    for statement in statements(group, normal):
        name = f"{statement.kind.replace('-', ' ')} of {statement.where}"
        values = statement.statistic(draws, score)
        result[name] = compared(name, statement, values, chains)
    return result


def compared(name: str, statement: Statement, values: Tensor, chains: int) -> Identity:
    """Average a statistic ``(chain * draw, units)`` and find its standard error."""
    table = values.reshape(chains, -1, values.shape[-1]).double().cpu().numpy()
    expected = statement.expectation.double().numpy()
    pooled, pooled_expectation = table.mean(-1, keepdims=True), float(expected.mean())
    if statement.kind == "exchangeability":
        places = np.linspace(0.0, 1.0, table.shape[-1])[:, None]
        pooled, pooled_expectation = table @ places * expected.sum() ** -1, 0.5
    return Identity(
        name,
        table.mean((0, 1)),
        expected,
        _standard_error(table),
        (float(pooled.mean()), pooled_expectation, float(_standard_error(pooled)[0])),
    )


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


def _gradient(prior: Callable[[Params], Tensor], draws: Params) -> dict[str, Tensor]:
    leaves = {site: value.clone().requires_grad_() for site, value in draws.items()}
    total = prior(leaves).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        site: torch.zeros_like(draws[site]) if g is None else g
        for site, g in zip(leaves, gradients, strict=True)
    }


def _normal_score(
    group: SymmetryGroup, draws: Params, prior: Mapping[str, Any]
) -> dict[str, Tensor]:
    used = {t.site for f in group.kind("scale").values() for t in f.terms} | set(group.shifts)
    score = {}
    for site in sorted(used):
        if site not in prior:
            raise UserError(f"the prior lacks the standard deviation of site {site!r}")
        deviation = torch.as_tensor(prior[site], dtype=torch.float64)
        score[site] = -draws[site] / deviation.to(draws[site]).square()
    return score


def _in_errors(difference: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by standard errors; what has none is infinitely far, unless it is there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((error == 0) & (difference == 0), 0.0, difference / error)


def _standard_error(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Monte-Carlo standard error of the mean, ``(chain, draw, units)`` in."""
    chains, draws, units = table.shape
    if draws < FEWEST_DRAWS:
        if chains < 2:
            return np.full(units, np.nan)
        error: NDArray[np.float64] = table.mean(1).std(0, ddof=1) / np.sqrt(chains)
        return error
    mcse: Callable[..., Any] = array_stats.mcse
    return np.atleast_1d(np.asarray(mcse(table, chain_axis=0, draw_axis=1, method="mean")))
