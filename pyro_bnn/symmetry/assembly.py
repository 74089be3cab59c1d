"""From solved spaces and exponents to a named group."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from pyro_bnn.symmetry import spaces as tree
from pyro_bnn.symmetry.analysis import Analysis
from pyro_bnn.symmetry.computation import Computation
from pyro_bnn.symmetry.exponents import LinearSystem
from pyro_bnn.symmetry.frames import Frame
from pyro_bnn.symmetry.group import Factor, Family, Space, SymmetryGroup, Term
from pyro_bnn.symmetry.spaces import Leaf, Slot
from pyro_bnn.symmetry.values import Block, Value

Place = tuple[int, int]


def assemble(analysis: Analysis, weights: dict[str, Value], read: Computation) -> SymmetryGroup:
    """Name the spaces, the axes and the generators.

    Hidden spaces are ``h0, h1, ...`` in order of computation, input axes ``x0, ...``, output
    axes ``y0, ...``.
    """
    names = _names(analysis, weights)
    layout = {
        site: tuple(_factors(axis, names) for axis in value.axes) for site, value in weights.items()
    }
    used = _order_of_use(weights, read)
    bases = _bases(analysis, names)
    blocks = {site: list(analysis.blocks(weights[site])) for site in used}
    families = [
        *_families("scale", analysis.scale, weights, blocks, names, bases),
        *_families("sign", analysis.sign, weights, blocks, names, bases),
    ]
    acted = {family.space for family in families}
    found: dict[str, Space] = {}
    for leaf, name in names.items():
        if leaf.pinned and name not in acted:
            continue
        sites = [
            (site, axis)
            for site in used
            for axis, slots in enumerate(weights[site].axes)
            if leaf in tree.simple(tree.leaves(slots))
        ]
        base = bases.get(leaf)
        found[name] = Space(
            name,
            leaf.size,
            not leaf.pinned,
            sites,
            names[base] if base else "",
            base.size if base else 1,
        )
    bent = {names[leaf] for leaf in tree.simple(analysis.bent) if leaf in names}
    return SymmetryGroup(
        shapes={site: value.shape for site, value in weights.items()},
        layout=layout,
        dims={site: _dims(site, value, names) for site, value in weights.items()},
        spaces=found,
        families={family.name: family for family in families},
        frames=_frames(found, families, bent),
        crossed=tuple(
            (site, axis)
            for site, value in weights.items()
            for axis, slots in enumerate(value.axes)
            if any(leaf.crossed for leaf in _simple(slots))
        ),
        unruled=dict(analysis.unruled),
        unused=read.unused(),
        statistics=tuple(name for name, weight in read.weights.items() if weight.statistic),
        offsets={
            site: analysis.offsets[value.owner]
            for site, value in weights.items()
            if value.owner in analysis.offsets
        },
    )


def layout_of(
    values: Mapping[str, Value], analysis: Analysis, weights: dict[str, Value]
) -> dict[str, tuple[tuple[Factor, ...], ...]]:
    """Describe other tensors of a computation by the spaces of the weights.

    Spaces that no weight runs through (that of the data) get names of their own.
    """
    names = _names(analysis, weights)
    for value in values.values():
        for leaf in (leaf for axis in value.axes for leaf in _simple(axis)):
            names.setdefault(leaf, f"a{len(names)}")
    return {
        name: tuple(_factors(axis, names) for axis in value.axes) for name, value in values.items()
    }


def _frames(
    found: dict[str, Space], families: Sequence[Family], bent: Collection[str]
) -> dict[str, Frame]:
    """Find the spaces that are only contracted: scales that any matrix may stand for."""
    frames = {}
    for space in found.values():
        own = [f for f in families if f.space == space.name]
        scales = [f for f in own if f.kind == "scale"]
        if not space.permutable or space.name in bent or len(scales) != 1 or space.size < 2:
            continue
        terms = scales[0].terms
        if len(own) == 2 and {term.exponent for term in terms} == {1.0, -1.0}:
            name = f"frames of {space.name}"
            frames[name] = Frame(space.name, space.size, space.over_size, terms)
    return frames


def _bases(analysis: Analysis, names: dict[Leaf, str]) -> dict[Leaf, Leaf]:
    """Find the spaces that are fibred over another one.

    A space lies over another if no tensor runs through it without running through the other,
    and no operator compares the points of the other while it keeps those of the space apart:
    then each point of the base has a space of its own.
    """
    companions: dict[Leaf, set[Leaf]] = {}
    for value in analysis.values:
        for alternative in itertools.product(*(tree.alternatives(a) for a in value.axes)):
            found = [slot.leaf for axis in alternative for slot in axis.slots]
            once = {leaf for leaf in found if found.count(leaf) == 1}
            for leaf in set(found):
                others = once - {leaf} if leaf in once else set()
                companions[leaf] = companions.get(leaf, others) & others
    tied = {
        (leaf, base)
        for mixing in analysis.mixed
        for leaf in tree.simple(mixing.kept)
        for base in tree.simple(mixing.compared)
    }
    bases: dict[Leaf, Leaf] = {}
    for leaf in names:
        for base in names:
            together = base in companions.get(leaf, set()) and (leaf, base) not in tied
            if together and base not in bases and leaf not in bases.values():
                bases.setdefault(leaf, base)
    return bases


def _order_of_use(weights: dict[str, Value], read: Computation) -> list[str]:
    """Return the weights in the order in which the computation first uses them."""
    live = read.live()
    position = {node: k for k, node in enumerate(read.graph.graph.nodes)}
    first = {
        site: min((position[user] for user in node.users if user in live), default=len(position))
        for site, node in read.placeholders().items()
    }
    return sorted(weights, key=lambda site: first[site])


def _names(analysis: Analysis, weights: dict[str, Value]) -> dict[Leaf, str]:
    """Name every simple space of the weights, in the order in which activations meet it."""
    own = {leaf for value in weights.values() for a in value.axes for leaf in _simple(a)}
    order: dict[Leaf, None] = {}
    weight_owners = {value.owner for value in weights.values()}
    for value in analysis.values:
        if value.owner not in weight_owners:
            for axis in value.axes:
                order |= dict.fromkeys(leaf for leaf in _simple(axis) if leaf in own)
    met = set(order)
    for value in weights.values():
        for axis in value.axes:
            order |= dict.fromkeys(_simple(axis))
    inputs = set(tree.simple(analysis.inputs))
    counts = {"h": 0, "x": 0, "y": 0, "p": 0}
    names = {}
    for leaf in order:
        pinned = "x" if leaf in inputs else "y" if leaf in met else "p"
        letter = pinned if leaf.pinned else "h"
        while f"{letter}{counts[letter]}" in weights:
            counts[letter] += 1  # xarray has no dimension that bears the name of a variable
        names[leaf] = f"{letter}{counts[letter]}"
        counts[letter] += 1
    return names


def _simple(axis: Sequence[Slot]) -> list[Leaf]:
    return tree.simple(tree.leaves(axis))


def _factors(axis: Sequence[Slot], names: dict[Leaf, str]) -> tuple[Factor, ...]:
    factors = []
    for slot in (s for factor in axis for s in factor.expand()):
        parts = slot.parts()
        if parts is None:
            factors.append(Factor(slot.size, names[slot.leaf]))
        else:
            inner = tuple(_factors(part, names) for part in parts)
            factors.append(Factor(slot.size, "", inner, slot.leaf.woven))
    return tuple(factors)


def _dims(site: str, value: Value, names: dict[Leaf, str]) -> tuple[str, ...]:
    """Name every axis of one site; an axis that is not one space gets ArviZ's default."""
    dims: list[str] = []
    for axis, slots in enumerate(value.axes):
        leaves = tree.expand(tree.leaves(slots))
        plain = len(leaves) == 1 and leaves[0].parts is None
        name = names[leaves[0]] if plain else ""
        if not name or name.startswith("p") or name in dims:
            name = f"{site}_dim_{axis}"
        dims.append(name)
    return tuple(dims)


def _families(
    kind: str,
    system: LinearSystem,
    weights: dict[str, Value],
    blocks: dict[str, list[Block]],
    names: dict[Leaf, str],
    bases: dict[Leaf, Leaf],
) -> list[Family]:
    """Collect what each free exponent moves, and keep an independent set.

    Families, and the blocks that each moves, come in order of computation.
    """
    terms: dict[Hashable, list[tuple[int, Term]]] = {}
    for site, listed in blocks.items():
        counts = [len(tree.alternatives(axis)) for axis in weights[site].axes]
        for number, block in enumerate(listed):
            place = tuple(int(k) for k in np.unravel_index(number, counts)) if counts else ()
            variables: list[tuple[int, int, Hashable]] = [(-1, -1, block.overall)]
            for axis, alternative in enumerate(block.axes):
                for k, slot in enumerate(alternative.slots):
                    variables.append((axis, k, block.per_unit(slot)))
            for axis, k, variable in variables:
                for free, share in system.value(variable).items():
                    term = Term(site, place, axis, k, float(share))
                    terms.setdefault(free, []).append((number, term))
    order = {leaf: k for k, leaf in enumerate(names)}
    candidates = [(_leaf_of(free), moved) for free, moved in terms.items()]
    candidates.sort(
        key=lambda pair: (2, 0) if pair[0] is None else (pair[0] not in bases, order[pair[0]])
    )
    independent = _Independent(system.modulus, blocks, bases)
    numbers: dict[str, int] = {}
    families = []
    for leaf, moved in candidates:
        if not independent.extends(leaf, moved):
            continue
        space = names[leaf] if leaf is not None else ""
        label = f"{kind} of {space}" if space else f"overall {kind}"
        numbers[label] = numbers.get(label, 0) + 1
        if numbers[label] > 1:
            label = f"{label} ({numbers[label]})"
        size = leaf.size * (bases[leaf].size if leaf in bases else 1) if leaf is not None else 1
        families.append(Family(label, kind, space, size, tuple(term for _, term in moved)))
    ranks = {name: k for k, name in enumerate(names.values())}
    return sorted(families, key=lambda family: ranks.get(family.space, len(ranks)))


def _leaf_of(free: Hashable) -> Leaf | None:
    """Return the space of a per-unit exponent, None for an overall one."""
    assert isinstance(free, tuple)
    if free[0] != "a":
        return None
    (leaf,) = tree.expand((free[3].leaf,))
    return leaf


class _Independent:
    """Keeps families whose action on the weights is not that of families kept before.

    The action is looked at on a coarse model of the weights in which every space has three
    points: by symmetry that decides for any number of points.
    """

    def __init__(
        self, modulus: int, blocks: dict[str, list[Block]], bases: dict[Leaf, Leaf]
    ) -> None:
        self._span = LinearSystem(modulus)
        self._bases = bases
        self._entries: dict[tuple[str, int], list[dict[Place, int]]] = {}
        self._places: dict[tuple[str, int], dict[Leaf, Place]] = {}
        for site, listed in blocks.items():
            for number, block in enumerate(listed):
                self._read(site, number, block)

    def extends(self, leaf: Leaf | None, terms: Sequence[tuple[int, Term]]) -> bool:
        """Whether a family moves the weights in a new way; if so it is remembered."""
        new = False
        base = self._bases.get(leaf) if leaf is not None else None
        for unit in range(1 if leaf is None else min(leaf.size, 3)):
            for below in range(1 if base is None else min(base.size, 3)):
                row: dict[Hashable, Fraction] = {}
                for number, term in terms:
                    where: dict[Place, int] = {}
                    if term.axis >= 0:
                        where[(term.axis, term.place)] = unit
                    if base is not None:
                        where[self._places[(term.site, number)][base]] = below
                    for k, entry in enumerate(self._entries[(term.site, number)]):
                        if all(entry.get(place, 0) == n for place, n in where.items()):
                            key = (term.site, number, k)
                            self._span.declare(key, 0)
                            row[key] = row.get(key, Fraction(0)) + Fraction(term.exponent)
                new = self._span.add(row) or new
        return new

    def _read(self, site: str, number: int, block: Block) -> None:
        """Choose the entries that tell all families apart on one block.

        A sum of functions of one coordinate each is known from its values where all coordinates
        but one are zero; a fibred space adds those where it and its base are not zero.
        """
        places: dict[Leaf, Place] = {}
        sizes: dict[Place, int] = {}
        pairs: list[tuple[Place, Leaf]] = []
        for axis, alternative in enumerate(block.axes):
            for k, slot in enumerate(alternative.slots):
                places[slot.leaf] = (axis, k)
                sizes[(axis, k)] = min(slot.size, 3)
                if slot.leaf in self._bases:
                    pairs.append(((axis, k), self._bases[slot.leaf]))
        entries: list[dict[Place, int]] = [{}]
        entries += [{place: n} for place, size in sizes.items() for n in range(1, size)]
        for place, base in pairs:
            below = places[base]
            entries += [
                {place: n, below: m} for n in range(1, sizes[place]) for m in range(1, sizes[below])
            ]
        self._entries[(site, number)] = entries
        self._places[(site, number)] = places
