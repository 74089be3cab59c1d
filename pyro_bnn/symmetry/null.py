"""The null control of alignment: what the procedure finds where there is nothing to find.

Aligning draws to a reference makes them look alike, whether they have anything in common or
not. Every statistic of aligned draws therefore goes with the same statistic of draws from the
prior that went through the same procedure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_bnn.symmetry.align import align, barycentre
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.sort import sort


@dataclass(frozen=True)
class Likeness:
    """How alike aligned draws are.

    Attributes
    ----------
    cosine : float
        Mean cosine between a draw and the reference.
    common : float
        Squared norm of the mean draw over the mean squared norm.
    """

    cosine: float
    common: float


@dataclass(frozen=True)
class NullControl:
    """The likeness of aligned draws beside that of aligned draws from the prior.

    Attributes
    ----------
    draws, null : Likeness
    """

    draws: Likeness
    null: Likeness

    @property
    def excess(self) -> float:
        """Common part of the draws beyond that of the null."""
        return self.draws.common - self.null.common


def null_control(
    group: SymmetryGroup, params: Mapping[str, Tensor], prior: Mapping[str, Tensor]
) -> NullControl:
    """Align draws, and draws from the prior, each to the barycentre of its first half.

    The second half is judged, so that no draw helped to make the reference it is compared to.

    Parameters
    ----------
    group : SymmetryGroup
    params, prior : dict of str to Tensor
        ``(batch, *shape)`` for each site, at least two draws of each.
    """
    return NullControl(_likeness(group, params), _likeness(group, prior))


def prior_draws(
    density: Any, group: SymmetryGroup, count: int, seed: int = 0
) -> dict[str, Tensor] | None:
    """Draw the weights of a network from their prior.

    Parameters
    ----------
    density : LogDensity
    group : SymmetryGroup
    count : int
    seed : int
        Of torch's global generator, which is left as it was.

    Returns
    -------
    dict of str to Tensor, or None
        ``(count, *shape)`` for each site of the group; None if `density` is a module, which has
        no prior.
    """
    model = getattr(density, "model", None)
    if model is None or not set(group.shapes) <= set(getattr(density, "stored", ())):
        return None
    draws: dict[str, list[Tensor]] = {site: [] for site in group.shapes}
    cuda = [density.device] if density.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(count):
            # Weights do not depend on the rows: a few are enough where there are many.
            trace = poutine.trace(model).get_trace(*density.some.args, **density.some.kwargs)
            for site, values in draws.items():
                values.append(trace.nodes[site]["value"].cpu())
    return {site: torch.stack(values) for site, values in draws.items()}


def _likeness(group: SymmetryGroup, params: Mapping[str, Tensor]) -> Likeness:
    ordered, _ = sort(group, {site: params[site] for site in group.shapes})
    half = next(iter(ordered.values())).shape[0] // 2
    reference = barycentre(group, {site: v[:half] for site, v in ordered.items()})
    found = align(group, {site: v[half:] for site, v in ordered.items()}, reference)
    count = len(found.overlap)
    flat = torch.cat([found.params[s].double().reshape(count, -1) for s in group.shapes], 1)
    target = torch.cat([reference[site].double().flatten() for site in group.shapes])
    cosine = torch.nn.functional.cosine_similarity(flat, target[None], dim=1).mean()
    common = flat.mean(0).square().sum() / flat.square().sum(-1).mean()
    return Likeness(float(cosine), float(common))
