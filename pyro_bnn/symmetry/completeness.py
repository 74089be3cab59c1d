"""How much of a network's continuous symmetry the group explains.

At a generic point, the directions in which the weights can move without moving the outputs are
the null space of the Jacobian. Its dimension, the rank deficit, counts every continuous symmetry
there is; the group's own dimension is at most that. What is left over is hidden symmetry that
no rule describes: a ReLU that is never or always on for the inputs given (deep and narrow
networks have those at most points), weights that meet only part of their inputs, as behind a
layer norm, whose outputs over gamma sum to zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import translation
from pyro_bnn.symmetry.computation import Computation, computation, is_network
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.many_outputs import with_outputs

if TYPE_CHECKING:
    from pyro_bnn.symmetry.group import SymmetryGroup

STEP = 1e-5
ORBIT_TOLERANCE = 1e-7
MOST_WEIGHTS = 2_000
"""Networks of more weights are measured on demand only."""
DIRECTIONS = 64


@dataclass(frozen=True)
class Completeness:
    """The rank deficit of a network beside the dimension of its group.

    Attributes
    ----------
    weights : int
        Number of weights that the function depends on, without running statistics.
    deficit : int
        Dimension of the null space of the Jacobian, the least over the points tried.
    explained : int
        Dimension of the orbit: the directions in which scales, frames and translations move the
        weights, those that move running statistics left out.
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
    source : torch.nn.Module, LogDensity or callable
        A small network: the whole Jacobian is formed. Of a model it is that of the log
        probabilities of single observations, at data of as many rows as it takes.
    *args
        An example input of the module, with enough rows for more outputs than weights; the data
        of the model.
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
    if is_network(source):
        read = computation(source, *args)
    else:
        read = with_outputs(source, args, _count(group))
    return _compared(group, read, points, tolerance)


def of_small(group: SymmetryGroup, source: Any, *args: Any) -> Completeness | None:
    """Compare the two at two points on a small network, at noise of as many rows as it takes.

    Returns
    -------
    Completeness or None
        None where the network cannot be given more rows.
    """
    try:
        return _compared(group, with_outputs(source, args, _count(group)), points=2)
    except Exception:  # whatever a network does with inputs of other rows: the table goes on
        return None


def _compared(
    group: SymmetryGroup, read: Computation, points: int, tolerance: float = 1e-9
) -> Completeness:
    sites = _weights(group)
    generator = torch.Generator().manual_seed(0)
    ranks = [_rank(read, sites, generator, tolerance) for _ in range(points)]
    explained = _orbit_dimension(group, read.generic_point(generator), sites)
    return Completeness(_count(group), _count(group) - max(ranks), explained)


def _weights(group: SymmetryGroup) -> list[str]:
    """Return the sites that the function depends on, running statistics left out."""
    return [s for s in group.shapes if s not in group.statistics and s not in group.unused]


def _count(group: SymmetryGroup) -> int:
    return sum(torch.Size(group.shapes[site]).numel() for site in _weights(group))


def _orbit_dimension(group: SymmetryGroup, point: Mapping[str, Tensor], sites: list[str]) -> int:
    """Return the rank of what the generators of the group do to the weights at a point."""
    fixed = [site for site in group.shapes if site not in sites]
    weights: list[Tensor] = []
    statistics: list[Tensor] = []
    for forward, backward in _generators(group):
        moved = [e.apply({s: point[s][None] for s in group.shapes}) for e in (forward, backward)]
        for rows, chosen in ((weights, sites), (statistics, fixed)):
            difference = [
                (moved[0][s] - moved[1][s]).reshape(len(moved[0][s]), -1) / (2 * STEP)
                for s in chosen
            ]
            difference = [rates.expand(forward.batch, -1) for rates in difference]
            rows.append(torch.cat([torch.zeros(forward.batch, 0), *difference], 1))
    if not weights:
        return 0
    tangent, still = torch.cat(weights), torch.cat(statistics)
    if still.shape[1]:
        left, singular, _ = torch.linalg.svd(still)
        tangent = left[:, _above(singular) :].T @ tangent
    return _above(torch.linalg.svdvals(tangent))


def _above(singular: Tensor) -> int:
    largest = float(singular.max()) if singular.numel() else 0.0
    return int((singular > ORBIT_TOLERANCE * max(largest, 1e-300)).sum())


def _generators(group: SymmetryGroup) -> Iterator[tuple[GroupElement, GroupElement]]:
    """Run through a small step along every continuous generator, and back."""
    for name, family in group.kind("scale").items():
        one = STEP * torch.eye(family.size, dtype=torch.float64)
        yield _pair(group, family.size, log_scales={name: one})
    for name, moved in group.translations.items():
        one = STEP * torch.eye(moved.size, dtype=torch.float64)
        shift = translation.spread(group, name, one)
        yield _pair(group, moved.size, added={moved.site: shift})
    for name, frame in group.frames.items():
        count = frame.count * frame.size**2
        one = STEP * torch.eye(count, dtype=torch.float64)
        one = one.reshape(count, frame.count, frame.size, frame.size)
        unit = torch.eye(frame.size, dtype=torch.float64)
        forward = GroupElement(group, {}, {}, {}, count, {}, {name: unit + one})
        yield forward, GroupElement(group, {}, {}, {}, count, {}, {name: unit - one})


def _pair(
    group: SymmetryGroup,
    batch: int,
    log_scales: Mapping[str, Tensor] | None = None,
    added: Mapping[str, Tensor] | None = None,
) -> tuple[GroupElement, GroupElement]:
    scales, sums = dict(log_scales or {}), dict(added or {})
    back = {n: -u for n, u in scales.items()}, {s: -r for s, r in sums.items()}
    return (
        GroupElement(group, {}, scales, {}, batch, sums),
        GroupElement(group, {}, back[0], {}, batch, back[1]),
    )


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
    if len(outputs) > 2 * count:
        # random sums of many outputs have the rank of them all
        draw = torch.Generator().manual_seed(0)
        mixing = torch.randn(2 * count, len(outputs), generator=draw, dtype=outputs.dtype)
        outputs = mixing @ outputs
    singular = torch.linalg.svdvals(_jacobian(outputs, list(leaves.values())))
    return int((singular > tolerance * singular[0]).sum())


def _jacobian(outputs: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return the derivatives of all outputs, many outputs at a time where operators allow it."""
    rows = []
    for start in range(0, len(outputs), DIRECTIONS):
        count = min(DIRECTIONS, len(outputs) - start)
        directions = outputs.new_zeros(count, len(outputs))
        directions[torch.arange(count), start + torch.arange(count)] = 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # operators without a batching rule are slow
            found = torch.autograd.grad(
                outputs,
                leaves,
                directions,
                retain_graph=True,
                is_grads_batched=True,
                allow_unused=True,
            )
        rows.append(
            torch.cat(
                [
                    outputs.new_zeros(count, leaf.numel()) if g is None else g.reshape(count, -1)
                    for leaf, g in zip(leaves, found, strict=True)
                ],
                1,
            )
        )
    return torch.cat(rows)
