"""How much of a network's continuous symmetry the group explains.

At a generic point, the directions in which the weights can move without moving the outputs are
the null space of the Jacobian. Its dimension, the rank deficit, counts every continuous symmetry
there is; the group's own dimension is at most that. What is left over is hidden symmetry that
no rule describes: a linear map in front of another, a ReLU that is never or always on for the
inputs given (deep and narrow networks have those at most points), directions of attention beyond
scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry.computation import Computation, computation
from pyro_bnn.symmetry.group import SymmetryGroup


@dataclass(frozen=True)
class Completeness:
    """The rank deficit of a network beside the dimension of its group.

    Attributes
    ----------
    weights : int
        Number of weights, without running statistics.
    deficit : int
        Dimension of the null space of the Jacobian, the least over the points tried.
    explained : int
        Dimension of the continuous part of the group.
    """

    weights: int
    deficit: int
    explained: int

    @property
    def score(self) -> float:
        """Share of the continuous symmetries that the group explains."""
        return self.explained / self.deficit if self.deficit else 1.0


def completeness(
    group: SymmetryGroup, source: Any, *args: Any, points: int = 6, tolerance: float = 1e-9
) -> Completeness:
    """Compare the rank deficit of a network's Jacobian with the dimension of its group.

    Parameters
    ----------
    group : SymmetryGroup
    source : torch.nn.Module
        A small network: the whole Jacobian is formed.
    *args
        An example input, with enough rows for more outputs than weights.
    points : int
        Generic points tried: the deficit is least at a generic point.
    tolerance : float
        Singular values below this share of the largest count as zero.

    Raises
    ------
    UserError
        If there are fewer outputs than weights: the deficit would be that of the data.

    Examples
    --------
    >>> from torch import nn
    >>> from pyro_bnn.symmetry import discover
    >>> net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> x = torch.zeros(60, 3)
    >>> found = completeness(discover(net, x), net, x)
    >>> found.deficit, found.explained
    (5, 5)
    """
    read = computation(source, *args)
    sites = [site for site in read.weights if site not in group.statistics]
    generator = torch.Generator().manual_seed(0)
    ranks = [_rank(read, sites, generator, tolerance) for _ in range(points)]
    count = sum(torch.Size(group.shapes[site]).numel() for site in sites)
    explained = sum(
        family.size
        for family in group.kind("scale").values()
        if any(term.site in sites for term in family.terms)
    )
    return Completeness(count, count - max(ranks), explained)


def _rank(read: Computation, sites: list[str], generator: torch.Generator, tolerance: float) -> int:
    """Return the rank of the Jacobian of the outputs by the weights at a generic point."""
    point = read.generic_point(generator)
    leaves = {site: point[site].requires_grad_() for site in sites}
    out = read.graph(*({**point, **leaves}[name] for name in read.weights))
    outputs = torch.cat([t.reshape(-1) for t in pytree.tree_leaves(out)])
    count = sum(leaf.numel() for leaf in leaves.values())
    if len(outputs) < count:
        raise UserError(
            f"{len(outputs)} outputs cannot tell {count} weights apart: give an example input "
            "with more rows"
        )
    rows = []
    for value in outputs:
        gradients = torch.autograd.grad(
            value, list(leaves.values()), retain_graph=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    singular = torch.linalg.svdvals(torch.stack(rows))
    return int((singular > tolerance * singular[0]).sum())
