"""Running statistics: what a network computes from its weights and data, and needs to predict.

A model declares them where it has them, as deterministic sites of the value that the rows at hand
give. Whoever runs the model may hold such a site at another value, as a latent one: that of the
training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["Statistic", "declare_statistic", "is_statistic", "read_statistics"]

_MARK = "running_statistic"


class Statistic(NamedTuple):
    """A running statistic of a model.

    Attributes
    ----------
    shape : torch.Size
        Of its value.
    positive : bool
        Whether it is a variance.
    """

    shape: torch.Size
    positive: bool

    def plain(self, like: Tensor) -> Tensor:
        """Return the value that normalises nothing: mean zero, variance one."""
        return torch.full(self.shape, float(self.positive)).to(like)


def declare_statistic(name: str, value: Tensor, *, positive: bool) -> Tensor:
    """Declare a running statistic; return its value, or the one at which it is held.

    Parameters
    ----------
    name : str
        Of the site.
    value : Tensor
        That of the rows at hand.
    positive : bool
        Whether it is a variance.
    """
    law = dist.Delta(value, event_dim=value.ndim).mask(False)
    # Auxiliary: where a guide declares it, Pyro would miss a latent site of that name in the model.
    marks: Any = {"_deterministic": True, "is_auxiliary": True, _MARK: {"positive": positive}}
    found: Tensor = pyro.sample(name, law, obs=value, infer=marks)
    return found


def is_statistic(node: Mapping[str, Any]) -> bool:
    """Whether a site of a Pyro trace is a running statistic."""
    return _MARK in (node["infer"] or {})


def read_statistics(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Statistic]:
    """List the running statistics among the nodes of a Pyro trace."""
    return {
        name: Statistic(node["value"].shape, node["infer"][_MARK]["positive"])
        for name, node in nodes.items()
        if node["type"] == "sample" and is_statistic(node)
    }
