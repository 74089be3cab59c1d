"""A symmetry group as a table that a person understands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from pyro_bnn.symmetry.frames import Frame
from pyro_bnn.symmetry.group import (
    Factor,
    Family,
    Placement,
    Space,
    SymmetryGroup,
    placements,
)
from pyro_bnn.symmetry.translation import Translation, joint_block

MOST_AXES = 6


def lines(group: SymmetryGroup, measure: bool = True) -> Iterator[str]:
    """Write a group line by line: its spaces, what acts besides them, what is left open.

    Parameters
    ----------
    group : SymmetryGroup
    measure : bool
        Whether to measure the completeness of a small network, if that was not done before.
    """
    if group.trivial:
        yield f"No symmetry found in {len(group.shapes)} sites: the group is the identity."
    else:
        yield (
            f"{_counted(len(group.permutable), 'permutable index space')}, "
            f"log |G| = {group.log_order:.1f}, {_counted(group.scale_dim, 'scale')}, "
            f"certified to {group.certificate:.0e}"
        )
        rows = [("space", "size", "acts", "prior", "runs through")]
        rows += [_row(group, space) for space in group.spaces.values()]
        loose = [f for f in group.families.values() if not f.space]
        rows += [(f.name, "1", f.kind, _prior(group, [f.name]), _where(f)) for f in loose]
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            yield "  ".join([*cells, row[4]]).rstrip()
    for moved in group.translations.values():
        yield _translation(group, moved)
    flipped = [shear.target for shear in group.shears if not shear.source]
    if flipped:
        yield f"what the flip of a sigmoid leaves over is taken up by {', '.join(flipped)}"
    for name, frame in group.frames.items():
        where = ", ".join(dict.fromkeys(term.site for term in frame.terms))
        yield (
            f"{name}: {frame.count} of GL({frame.size}), {frame.count * frame.size**2} "
            f"dimensions with its scales ({_words(group, name)}): {where}"
        )
    if measure or group.measured is not None:
        yield _completeness(group)
    yield from left_open(group)
    held = [
        f"{site}[{axis}]"
        for site, dims in group.layout.items()
        for axis, factors in enumerate(dims)
        if any(name.startswith("y") for name in _names(factors))
    ]
    if held:
        more = f" and {len(held) - MOST_AXES} more axes" if len(held) > MOST_AXES else ""
        yield f"order fixed by outputs, data or constants: {', '.join(held[:MOST_AXES])}{more}"
    if group.unused:
        yield f"not in the likelihood: {', '.join(group.unused)}"
    for name, count in group.unruled.items():
        yield f"no rule for {name} ({count} calls): what it touches is pinned"
    for name, error in group.rejected.items():
        yield f"dropped {name}: it changes the output by {error:.1e}"


def _completeness(group: SymmetryGroup) -> str:
    """Say how much of the rank deficit the group explains."""
    found = group.measure()
    if found is None:
        return (
            "completeness not measured: completeness(group, network, x) does, with many rows in x"
        )
    if not found.deficit:
        return "completeness 1.00: the function changes in every direction of its weights"
    return (
        f"completeness {found.score:.2f}: the function stays in {found.deficit} directions of its "
        f"{found.weights} weights, and the group moves along {found.explained} of them"
    )


def left_open(group: SymmetryGroup) -> Iterator[str]:
    """Name the symmetries that canonical draws still have, or that were not looked for."""
    for frame in group.frames.values():
        yield _unsettled(frame)
    within = [f"{space.name} in {space.over}" for space in group.spaces.values() if space.over]
    if within:
        more = f" and {len(within) - MOST_AXES} more" if len(within) > MOST_AXES else ""
        yield (
            f"spaces within others ({', '.join(within[:MOST_AXES])}{more}): permutations that "
            "would break up their groups were not looked for"
        )
    if group.crossed:
        where = ", ".join(f"{site}[{axis}]" for site, axis in group.crossed)
        yield (
            f"cut in ways that cross one another, by groups, views or slices: {where}; symmetries "
            "that respect all cuts were not looked for"
        )
    products = [
        f"{site}[{axis}]"
        for site, dims in group.layout.items()
        for axis, factors in enumerate(dims)
        if any(_of_several(group, place) for place in placements(factors))
    ]
    if products:
        where = ", ".join(products)
        yield (
            f"products of spaces along one axis, such as groups times channels ({where}): scales, "
            "signs and orders that do not act on each factor by itself were not looked for"
        )
    for space in group.spaces.values():
        twice = next(
            (
                f"{site}[{axis}]"
                for site, axis in space.sites
                if not space.permutable and _times(group.layout[site][axis], space.name) > 1
            ),
            "",
        )
        if twice:
            yield (
                f"{space.name} runs along {twice} more than once, as the planes of rotary "
                f"embeddings do: of maps that turn or mix its {space.size} planes, only scales "
                "and signs were looked for"
            )


def _unsettled(frame: Frame) -> str:
    rest = frame.count * (frame.size**2 - frame.size)
    return (
        f"of the matrices on {frame.space} the quotient settles scales, signs and order; "
        f"the other {rest} dimensions stay in the draws"
    )


def _names(axis: Sequence[Factor]) -> Iterator[str]:
    """Run through the spaces of an axis, in parts too."""
    for factor in axis:
        yield factor.space
        for part in factor.parts:
            yield from _names(part)


def _of_several(group: SymmetryGroup, place: Placement) -> bool:
    """Whether an axis runs through several permutable spaces, none of them within another."""
    hidden = [group.spaces[name] for name in place.spaces if name in group.permutable]
    return any(a.over != b.name and b.over != a.name for a, b in combinations(hidden, 2))


def _times(axis: Sequence[Factor], name: str) -> int:
    """Count how often a space occurs along an axis, in parts that follow one another."""
    return list(_names(axis)).count(name)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _translation(group: SymmetryGroup, moved: Translation) -> str:
    """Say in words what may be added to a site."""
    block = joint_block(group, moved.site, moved.block)
    place = "" if math.prod(block.sizes) == math.prod(group.shapes[moved.site]) else " (one block)"
    size = f"({_counted(moved.size, 'dimension')}, {_words(group, moved.name)})"
    if moved.along >= 0:
        return (
            f"{moved.name}{place}: the same may be added all along {block.spaces[moved.along]} "
            f"{size}"
        )
    text = f"{moved.name}{place}: anything may be added {size}"
    takers = [
        shear.target
        for shear in group.shears
        if (shear.source, shear.block) == (moved.site, moved.block)
    ]
    return f"{text}, taken up by {', '.join(takers)}" if takers else text


def _row(group: SymmetryGroup, space: Space) -> tuple[str, str, str, str, str]:
    acts = ["permute"] if space.permutable else []
    own = [f for f in group.families.values() if f.space == space.name]
    for kind in ("scale", "sign"):
        number = sum(f.kind == kind for f in own)
        if number:
            acts.append(kind if number == 1 else f"{kind} x{number}")
    where = ", ".join(f"{site}[{axis}]" for site, axis in space.sites[:6])
    if len(space.sites) > 6:
        where += f", ... ({len(space.sites)} axes)"
    size = str(space.size) if not space.over else f"{space.size} in each {space.over}"
    names = [f.name for f in own] + ([space.name] if space.permutable else [])
    return space.name, size, " ".join(acts), _prior(group, names), where


def _prior(group: SymmetryGroup, names: Sequence[str]) -> str:
    known = [group.preserves_prior[name] for name in names if name in group.preserves_prior]
    if not known:
        return "?"
    return "kept" if all(known) else "changed" if not any(known) else "in part"


def _words(group: SymmetryGroup, name: str) -> str:
    """Say what a generator leaves alone, in a line of its own."""
    if name not in group.preserves_prior:
        return "prior unknown"
    return "likelihood and prior" if group.preserves_prior[name] else "likelihood only"


def _where(family: Family) -> str:
    return ", ".join(dict.fromkeys(term.site for term in family.terms))
