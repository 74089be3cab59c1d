"""The certificate: every generator is applied to the network itself before it is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyro_bnn.symmetry.computation import Computation
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup

TOLERANCE = 1e-10
PRIOR_TOLERANCE = 1e-4
PRIOR_POINTS = 3
MANY_WEIGHTS = 20_000_000


def certify(group: SymmetryGroup, read: Computation) -> SymmetryGroup:
    """Drop the generators that change the output of the network.

    All generators are tried together at generic weights (two points, one for networks of many
    weights); only if the output moves are they halved until those at fault stand alone.

    Parameters
    ----------
    group : SymmetryGroup
        The group as proposed by the graph.
    read : Computation

    Returns
    -------
    SymmetryGroup
        With `certificate` and `rejected` filled in.
    """
    generator = torch.Generator().manual_seed(1)
    tests = []
    for _ in range(1 if _entries(read) > MANY_WEIGHTS else 2):
        weights = read.generic_point(generator)
        tests.append((weights, read(weights), group.sample(generator)))
    worst = 0.0

    def error(names: Sequence[str]) -> float:
        errors = []
        for weights, before, element in tests:
            moved = _only(element, names).apply({k: w[None] for k, w in weights.items()})
            after = read({k: w[0] for k, w in moved.items()})
            scale = before.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
            difference = float((after - before).abs().max() / scale)
            errors.append(difference if difference == difference else float("inf"))
        return max(errors)

    def failing(names: Sequence[str]) -> dict[str, float]:
        nonlocal worst
        if not names:
            return {}
        found = error(names)
        if found <= TOLERANCE:
            worst = max(worst, found)
            return {}
        if len(names) == 1:
            return {names[0]: found}
        half = len(names) // 2
        return failing(names[:half]) | failing(names[half:])

    names = [f"permutation of {name}" for name in group.permutable] + list(group.families)
    rejected = failing(names)
    kept = without(group, rejected)
    return replace(
        kept,
        rejected=rejected,
        certificate=worst,
        preserves_prior=_prior_kept(kept, read),
        shifts=_shifts(kept, read, *tests[0][:2]),
    )


def _prior_kept(group: SymmetryGroup, read: Computation) -> dict[str, bool]:
    """Test on a few draws whether each generator preserves the prior density too."""
    if read.log_prior is None:
        return {}
    generator = torch.Generator().manual_seed(2)
    points = [read.generic_point(generator) for _ in range(PRIOR_POINTS)]
    draws = {site: torch.stack([point[site] for point in points]) for site in read.weights}
    element = group.sample(generator, PRIOR_POINTS)
    before = read.log_prior(draws)
    result = {}
    for name in (*group.permutable, *group.families):
        generators = [name, f"permutation of {name}"]
        after = read.log_prior(_only(element, generators).apply(draws))
        close = torch.allclose(before, after, rtol=PRIOR_TOLERANCE, atol=PRIOR_TOLERANCE)
        result[name] = close and name not in group.kind("scale")
    return result


def _shifts(
    group: SymmetryGroup, read: Computation, weights: Mapping[str, Tensor], before: Tensor
) -> dict[str, int]:
    """Find the sites that a shift common to all outputs leaves without effect.

    A softmax does not see its logits' mean: the mean over the output axis of the last weights
    is free.
    """
    found = {}
    generator = torch.Generator().manual_seed(3)
    for site, dims in group.dims.items():
        for axis, name in enumerate(dims):
            shape = list(group.shapes[site])
            if not name.startswith("y") or site in (*group.unused, *group.statistics):
                continue
            shape[axis] = 1
            shift = torch.randn(shape, generator=generator, dtype=torch.float64)
            after = read({**weights, site: weights[site] + shift})
            if float((after - before).abs().max() / before.abs().max()) <= TOLERANCE:
                found[site] = axis
    return found


def _entries(read: Computation) -> int:
    return sum(math.prod(weight.shape) for weight in read.weights.values())


def without(group: SymmetryGroup, names: Sequence[str] | dict[str, float]) -> SymmetryGroup:
    """Return the group without some generators."""
    families = {name: f for name, f in group.families.items() if name not in names}
    spaces = {}
    for name, space in group.spaces.items():
        permutable = space.permutable and f"permutation of {name}" not in names
        spaces[name] = replace(space, permutable=permutable)
    return replace(group, families=families, spaces=spaces)


def _only(element: GroupElement, names: Sequence[str]) -> GroupElement:
    """Return the part of an element that belongs to some generators."""
    chosen = set(names)
    return replace(
        element,
        permutations={
            n: p for n, p in element.permutations.items() if f"permutation of {n}" in chosen
        },
        log_scales={n: u for n, u in element.log_scales.items() if n in chosen},
        signs={n: s for n, s in element.signs.items() if n in chosen},
    )
