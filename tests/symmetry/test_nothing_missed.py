"""Brute force over swaps and flips of hidden units finds nothing that discovery missed.

A swap exchanges two positions, and a flip changes the sign of one, along any set of axes of one
size. Whatever leaves the function alone must lead to the same canonical point.
"""

from __future__ import annotations

import itertools
import random
import re

import pytest
import random_networks as networks
import torch

from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.group import placements
from pyro_bnn.symmetry.table import left_open

MOST_AXES = 7
ROWS = 32  # a rectifier that is off in every row would make any move of what it feeds look harmless


def moves(axes):
    """Run through sets of axes of one size, and what to do at their positions."""
    for n in sorted({size for _, _, size in axes if size > 1}):
        same = [(site, axis) for site, axis, size in axes if size == n][:MOST_AXES]
        pairs = {(0, 1), (0, n - 1), (n - 2, n - 1)}
        for count in range(1, len(same) + 1):
            for chosen in itertools.combinations(same, count):
                for pair in sorted(pairs):
                    yield chosen, pair
                yield chosen, (0,)
                yield chosen, (n - 1,)


def moved(point, chosen, positions):
    result = dict(point)
    for site, axis in chosen:
        value = result[site].clone()
        if len(positions) == 2:
            order = torch.arange(value.shape[axis])
            order[list(positions)] = torch.tensor(positions[::-1])
            result[site] = value.index_select(axis, order)
        else:
            value.select(axis, positions[0]).neg_()
            result[site] = value
    return result


def missed(kind, plan):
    """List the moves that leave the function alone and change the canonical point.

    What the table names for every axis that moves was not missed in silence.
    """
    net, x = networks.build(kind, plan)
    group, read = discover(net, x), computation(net, x.new_zeros(ROWS, *x.shape[1:]))
    generator = torch.Generator().manual_seed(3)
    points = [read.generic_point(generator) for _ in range(2)]
    outputs = [read(point) for point in points]

    def kept_by(move):
        """Whether a move leaves the function alone, at two points."""
        return all(
            (read(moved(point, *move)) - before).abs().max() <= 1e-12 * before.abs().max()
            for point, before in zip(points, outputs, strict=True)
        )

    axes = [
        (site, axis, n)
        for site, shape in group.shapes.items()
        if site not in group.unused
        for axis, n in enumerate(shape)
    ]
    kept = [move for move in moves(axes) if kept_by(move)]
    point = points[0]
    found = [point, *(moved(point, *m) for m in kept)]
    canonical, _ = Quotient(group).canonicalize(
        {site: torch.stack([p[site] for p in found]) for site in point}
    )
    same = torch.stack(
        [
            torch.isclose(v[1:], v[:1].expand_as(v[1:]), rtol=1e-8, atol=1e-8).flatten(1).all(-1)
            for site, v in canonical.items()
            if site not in group.statistics
        ]
    ).all(0)
    left = [move for move, one in zip(kept, same.tolist(), strict=True) if not one]
    return [move for move in left if not said(group, move[0])], len(kept)


def said(group, chosen):
    """Whether the table says of every axis, or of a space along it, what was not looked for."""
    text = " ".join(line for line in left_open(group) if "not looked for" in line)
    words = set(re.findall(r"[\w.]+\[\d+\]|\w+", text))
    return all(
        f"{site}[{axis}]" in words
        or any(words & set(place.spaces) for place in placements(group.layout[site][axis]))
        for site, axis in chosen
    )


def plan_of(kind, seed):
    chance = random.Random(seed)
    steps = networks.KINDS[kind][1]
    first = "linear" if kind == "flat" else "conv"  # else units of the data take part
    more = [(chance.choice(steps), chance.randint(0, 60)) for _ in range(chance.randint(1, 3))]
    return [(first, chance.randint(1, 60)), *more]


@pytest.mark.parametrize("seed", range(12))
def test_flat_networks(seed):
    torch.manual_seed(seed)
    assert missed("flat", plan_of("flat", seed))[0] == []


def test_the_search_finds_swaps_and_flips():
    torch.manual_seed(0)
    left, count = missed("flat", [("linear", 1), ("act", 1)])
    assert left == []
    assert count >= 5  # three swaps and two flips of tanh units


def test_groups_that_cut_across_a_concatenation_are_named():
    """Four and six channels in two groups of five: only a part of them may change places."""
    plan = [("linear", 0), ("linear", 1), ("cat", 0), ("groups", 0), ("act", 2)]
    torch.manual_seed(0)
    assert missed("flat", plan)[0] == []
    group = discover(*networks.build("flat", plan))
    (line,) = [line for line in left_open(group) if line.startswith("cut in ways")]
    assert "1.weight[0]" in line


def test_products_of_spaces_are_named():
    """A map of channels to themselves runs through their groups twice: none lies in another."""
    plan = [("conv", 54), ("shared", 10), ("shared", 18), ("group", 22)]
    torch.manual_seed(0)
    assert missed("grid", plan)[0] == []
    (line,) = [
        line
        for line in left_open(discover(*networks.build("grid", plan)))
        if line.startswith("products of spaces")
    ]
    assert "layers.3.weight[0]" in line


def test_signs_of_a_shuffled_norm_are_those_of_single_units():
    """The norm looks at both factors of the shuffled space at once, and so ties neither."""
    torch.manual_seed(0)
    plan = [("linear", 1), ("shuffle", 0), ("rms", 0)]
    assert missed("flat", plan)[0] == []
    group = discover(*networks.build("flat", plan))
    assert {family.size for family in group.kind("sign").values()} == {6}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "grid"])
def test_more_networks(kind):
    for seed in range(100, 150):
        torch.manual_seed(seed)
        plan = plan_of(kind, seed)
        assert missed(kind, plan)[0] == [], (seed, plan)
