"""Frank-Wolfe: the overlap maximised over the convex hull of all (signed) permutations.

From the barycentre, which has no labels, so that the result does not depend on those of a draw:
as long as there is a gradient. Between flipping units, with neither biases nor inputs to go by,
there is none at first, and the order in which draws come counts; the quotient sorts them before.
The step along each direction is exact where the overlap is quadratic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_bnn.symmetry.overlap import Overlap
from pyro_bnn.symmetry.overlap_block import Matrices

COMPACT = 0.3


def frank_wolfe(overlap: Overlap, iterations: int, tolerance: float) -> tuple[Matrices, int]:
    """Maximise from the barycentre; round to the nearest vertex.

    Parameters
    ----------
    overlap : Overlap
    iterations : int
        Most steps.
    tolerance : float
        Relative duality gap at which a draw is done.

    Returns
    -------
    vertex : dict of str to Tensor
        ``(batch, size, size)`` for each space.
    steps : int
        Steps of the slowest draw.
    """
    x = overlap.barycentre()
    result = {name: m.clone() for name, m in x.items()}
    here, gradient, value = overlap, overlap.gradients(x), overlap.value(x)
    active = torch.arange(overlap.batch, device=overlap.device)
    running = torch.ones_like(active, dtype=torch.bool)
    steps = 0
    while bool(running.any()) and steps < iterations:
        steps += 1
        vertex: Matrices = {}
        for bundle in here.bundles:
            vertex |= here.vertex(gradient, bundle)
        there = here.gradients_at(vertex)
        slope = _inner(gradient, vertex) - _inner(gradient, x)
        at_vertex = (
            (_inner(there, vertex) + _inner(here.linear, vertex)) / 2
            if here.quadratic
            else here.value(vertex)
        )
        bend = at_vertex - value - slope
        size = torch.where(bend < 0, (-slope / (2 * bend)).clamp(0.0, 1.0), 1.0)
        x = _between(x, vertex, size)
        if here.quadratic:
            value = value + size * slope + size.square() * bend
            gradient = _between(gradient, there, size)
        else:
            value, gradient = here.value(x), here.gradients(x)
        for name, m in x.items():
            result[name][active[running]] = m[running]
        running &= slope > tolerance * at_vertex.abs()
        if (~running).double().mean() > COMPACT and bool(running.any()):
            here, active, value = here.take(running), active[running], value[running]
            x = {n: m[running] for n, m in x.items()}
            gradient = {n: m[running] for n, m in gradient.items()}
            running = running[running]
    rounded: Matrices = {}
    for bundle in overlap.bundles:
        rounded |= overlap.vertex(result, bundle)
    return rounded, steps


def _inner(a: Matrices, b: Matrices) -> Tensor:
    """Return the inner product of matrices, ``(batch,)``; one that is missing is zero."""
    return torch.stack([(m * b[name]).flatten(1).sum(-1) for name, m in a.items()]).sum(0)


def _between(a: Matrices, b: Matrices, share: Tensor) -> Matrices:
    """Go a share of the way, ``(batch,)``, from some matrices to others."""
    return {name: torch.lerp(m, b[name], share[:, None, None]) for name, m in a.items()}
