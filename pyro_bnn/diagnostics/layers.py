"""Convergence site by site, or layer by layer: where in the network the chains disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyro_bnn.diagnostics.convergence import Convergence

MAX_ROWS = 12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Statistics of the scalars of one site or layer that were looked at.

    Attributes
    ----------
    name
        Of the site (``"0.weight"``), or of the layer (``"0"``).
    rhat, ess_bulk, relative_mcse
        Rank-normalised split R-hat, bulk effective sample size, and Monte-Carlo error of the mean
        in standard deviations of the draws, shape ``(scalar,)``; NaN where they are not defined.
    """

    name: str
    rhat: Array
    ess_bulk: Array
    relative_mcse: Array


def by_site(found: Convergence) -> list[Part]:
    """Take the statistics of a space apart by site.

    Parameters
    ----------
    found
        Convergence of weights, sampled or canonical.

    Returns
    -------
    list of Part
        In the order of the trace; without sites of which a random subset holds no scalar.
    """
    return _parts(found, [label.partition("[")[0] for label in found.labels])


def by_layer(found: Convergence) -> list[Part]:
    """Take the statistics of a space apart by layer: the site's name up to its last dot.

    Parameters
    ----------
    found
        Convergence of weights, sampled or canonical.

    Returns
    -------
    list of Part
        In the order of the trace. A site without a dot is a layer of its own.
    """
    sites = [label.partition("[")[0] for label in found.labels]
    return _parts(found, [site.rpartition(".")[0] or site for site in sites])


def _parts(found: Convergence, owners: list[str]) -> list[Part]:
    names = np.array(owners)
    parts = []
    for name in dict.fromkeys(owners):
        own = names == name
        parts.append(Part(name, found.rhat[own], found.ess_bulk[own], found.relative_mcse[own]))
    return parts
