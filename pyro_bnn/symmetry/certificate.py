"""The certificate: every generator is applied to the network itself before it is believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyro_bnn.symmetry.computation import LOUD, Computation
from pyro_bnn.symmetry.element import GroupElement
from pyro_bnn.symmetry.group import SymmetryGroup
from pyro_bnn.symmetry.idle_units import singular
from pyro_bnn.symmetry.translation import null_blocks, part, settle, spread

TOLERANCE = 1e-10
PRIOR_TOLERANCE = 1e-6
PRIOR_POINTS = 3
FEW_WEIGHTS = 50_000
MANY_WEIGHTS = 20_000_000


def certify(group: SymmetryGroup, read: Computation) -> SymmetryGroup:
    """Drop the generators that change the output of the network.

    All generators are tried together at generic weights (two points, one for networks of many
    weights); only if the output moves are they halved until those at fault stand alone.
    Translations come first: they are conjectures, tried at large weights too where there are
    few, and those that fail are dropped in silence.

    Parameters
    ----------
    group : SymmetryGroup
        The group as proposed by the graph.
    read : Computation

    Returns
    -------
    SymmetryGroup
        With `certificate`, `rejected`, `preserves_prior` and `singular` filled in.
    """
    moved = _Trial(read, group, loud=True).failing(list(group.translations))
    kept = _settled(without(group, moved))
    trial = _Trial(read, kept)
    names = [f"permutation of {name}" for name in kept.permutable]
    rejected = trial.failing([*names, *kept.families, *kept.translations])
    trial.renew(kept, frames=True)
    rejected |= trial.failing(list(kept.frames))
    conjectures = set(kept.translations)
    kept = _settled(without(kept, rejected))
    rejected = {name: error for name, error in rejected.items() if name not in conjectures}
    return replace(
        kept,
        rejected=rejected,
        certificate=trial.worst,
        preserves_prior=_prior_kept(kept, read),
        singular=trial.singular(kept),
    )


class _Trial:
    """Generic weights, the outputs there, and elements to try on them.

    Attributes
    ----------
    worst : float
        Largest relative error of what passed.
    """

    def __init__(self, read: Computation, group: SymmetryGroup, loud: bool = False) -> None:
        self.read = read
        self.worst = 0.0
        self._generator = torch.Generator().manual_seed(1)
        count = 1 if _entries(read) > MANY_WEIGHTS else 2
        last = LOUD if loud and _entries(read) <= FEW_WEIGHTS else 1.0
        sizes = (1.0, last)[:count]
        self._points = [read.generic_point(self._generator, size) for size in sizes]
        self._before = [read(point) for point in self._points]
        self.renew(group)

    def renew(self, group: SymmetryGroup, frames: bool = False) -> None:
        """Draw new elements, of the general linear groups or of all else."""
        draw = group.sample_frames if frames else group.sample
        self._elements = [draw(self._generator) for _ in self._points]
        if not frames and len(self._points) > 1:
            # what hardly matters along a small step may matter where the quotient goes
            settled = settle(group, {k: w[None] for k, w in self._points[0].items()})[1]
            self._elements[0] = replace(self._elements[0], added=settled.added)

    def failing(self, names: Sequence[str], beside: Sequence[str] = ()) -> dict[str, float]:
        """Return the generators that change the output beside others, with their error."""
        if not names:
            return {}
        found = self._error([*beside, *names])
        if found <= TOLERANCE:
            self.worst = max(self.worst, found)
            return {}
        if len(names) == 1:
            return {names[0]: found}
        half = len(names) // 2
        first = self.failing(names[:half], beside)
        good = [name for name in names[:half] if name not in first]
        return first | self.failing(names[half:], [*beside, *good])

    def singular(self, group: SymmetryGroup) -> tuple[str, ...]:
        """Name the scales whose units cannot be emptied."""

        def finite(weights: dict[str, Tensor]) -> bool:
            return bool(self.read({k: w[0] for k, w in weights.items()}).isfinite().all())

        return singular(group, {k: w[None] for k, w in self._points[0].items()}, finite)

    def _error(self, names: Sequence[str]) -> float:
        errors = []
        for point, before, element in zip(self._points, self._before, self._elements, strict=True):
            moved = _only(element, names).apply({k: w[None] for k, w in point.items()})
            after = self.read({k: w[0] for k, w in moved.items()})
            scale = before.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
            difference = float((after - before).abs().max() / scale)
            errors.append(difference if difference == difference else float("inf"))
        return max(errors)


def _prior_kept(group: SymmetryGroup, read: Computation) -> dict[str, bool]:
    """Test on a few draws whether each generator preserves the prior density too.

    Permutations and signs are tried together, in halves if one changes it. Scales and matrices
    need no test: a flat density does not make up for the volume that they change.
    """
    if read.log_prior is None:
        return {}
    log_prior = read.log_prior
    generator = torch.Generator().manual_seed(2)
    count = PRIOR_POINTS if _entries(read) <= FEW_WEIGHTS else 1
    points = [read.generic_point(generator) for _ in range(count)]
    draws = {site: torch.stack([point[site] for point in points]) for site in read.weights}
    before = log_prior(draws)
    element = group.sample(generator, count)

    def changing(names: Sequence[str]) -> set[str]:
        if not names:
            return set()
        generators = [*names, *(f"permutation of {name}" for name in names)]
        after = log_prior(_only(element, generators).apply(draws))
        # As what they do has no Jacobian, they preserve the prior of each site or not the whole.
        if bool(((after - before).abs() <= PRIOR_TOLERANCE * (1 + before.abs())).all()):
            return set()
        if len(names) == 1:
            return set(names)
        half = len(names) // 2
        return changing(names[:half]) | changing(names[half:])

    changed = changing([*group.permutable, *group.kind("sign")])
    changed |= {name for name in group.translations if changing([name])}
    changed |= {*group.kind("scale"), *group.frames}
    names = (*group.permutable, *group.families, *group.translations, *group.frames)
    return {name: name not in changed for name in names}


def _entries(read: Computation) -> int:
    return sum(math.prod(weight.shape) for weight in read.weights.values())


def without(group: SymmetryGroup, names: Sequence[str] | dict[str, float]) -> SymmetryGroup:
    """Return the group without some generators."""
    spaces = {}
    for name, space in group.spaces.items():
        permutable = space.permutable and f"permutation of {name}" not in names
        spaces[name] = replace(space, permutable=permutable)
    return replace(
        group,
        spaces=spaces,
        families={name: f for name, f in group.families.items() if name not in names},
        translations={n: t for n, t in group.translations.items() if n not in names},
        frames={name: f for name, f in group.frames.items() if name not in names},
    )


def _settled(group: SymmetryGroup) -> SymmetryGroup:
    """Drop the shears that no generator needs."""
    null = null_blocks(group)
    flipped = {(term.site, term.axis) for f in group.kind("sign").values() for term in f.terms}
    needed = [
        shear
        for shear in group.shears
        if (
            (shear.source, shear.block) in null
            if shear.source
            else any(site == shear.weight and axis != shear.out for site, axis in flipped)
        )
    ]
    return replace(group, shears=tuple(needed))


def _only(element: GroupElement, names: Sequence[str]) -> GroupElement:
    """Return the part of an element that belongs to some generators."""
    chosen = set(names)
    group = element.group
    added: dict[str, Tensor] = {}
    for name in chosen & set(group.translations):
        site = group.translations[name].site
        share = spread(group, name, part(group, name, element.added[site]))
        added[site] = added[site] + share if site in added else share
    return replace(
        element,
        permutations={
            n: p for n, p in element.permutations.items() if f"permutation of {n}" in chosen
        },
        log_scales={n: u for n, u in element.log_scales.items() if n in chosen},
        signs={n: s for n, s in element.signs.items() if n in chosen},
        added=added,
        frames={n: m for n, m in element.frames.items() if n in chosen},
    )
