"""The certificate: every generator is applied to the network itself before it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pyro_bnn.symmetry.computation import Computation
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup

TOLERANCE = 1e-10


def certify(group: SymmetryGroup, read: Computation, points: int = 2) -> SymmetryGroup:
    """Drop the generators that change the output of the network.

    All generators are tried together at generic weights; only if the output moves are they
    halved until those at fault stand alone.

    Parameters
    ----------
    group : SymmetryGroup
        The group as proposed by the graph.
    read : Computation
    points : int
        Number of generic points.

    Returns
    -------
    SymmetryGroup
        With `certificate` and `rejected` filled in.
    """
    generator = torch.Generator().manual_seed(1)
    tests = []
    for _ in range(points):
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
    return replace(kept, rejected=rejected, certificate=worst)


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
