"""Index spaces are refined by splitting, joining, weaving and unifying."""

from __future__ import annotations

import pytest

from pyro_bnn.symmetry import spaces
from pyro_bnn.symmetry.exponents import LinearSystem
from pyro_bnn.symmetry.spaces import Leaf


def positions(leaves):
    """Return the positions of every simple space, part by part."""
    found = []
    for choice in spaces.alternatives(spaces.slots(leaves)):
        places = [choice.offset]
        for slot, stride in zip(choice.slots, choice.strides, strict=True):
            places = [p + stride * k for p in places for k in range(slot.size)]
        found.append(places)
    return found


def test_a_product_runs_row_by_row():
    assert positions([Leaf(2), Leaf(3)]) == [[0, 1, 2, 3, 4, 5]]
    (choice,) = spaces.alternatives(spaces.slots([Leaf(2), Leaf(3)]))
    assert choice.strides == (3, 1)


def test_parts_follow_one_another_or_take_turns():
    a, b = Leaf(3), Leaf(2)
    assert positions(spaces.concatenation([(a,), (b,)])) == [[0, 1, 2], [3, 4]]
    assert positions(spaces.weaving([(a,), (b,)])) == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize("cut", range(1, 7))
def test_cutting_a_woven_space_keeps_every_point_in_its_place(cut):
    woven = spaces.weaving([(Leaf(4),), (Leaf(3),)])
    halves = spaces.split_sum(woven, cut)
    assert halves is not None
    assert [spaces.size(half) for half in halves] == [cut, 7 - cut]
    whole = sorted(p for places in positions(woven) for p in places)
    assert whole == list(range(7))
    for half, start in zip(halves, (0, cut), strict=True):
        for choice, places in zip(
            spaces.alternatives(spaces.slots(half)), positions(half), strict=True
        ):
            same = [
                spots
                for other, spots in zip(
                    spaces.alternatives(spaces.slots(woven)), positions(woven), strict=True
                )
                if other.offset == choice.offset + start
            ]
            assert same == [[p + start for p in places]]


def test_unification_pins_both_sides_and_what_cannot_be_reconciled():
    free, fixed = Leaf(6), Leaf(6, pinned=True)
    spaces.unify([free], [fixed])
    assert all(leaf.pinned for leaf in spaces.simple([free]))
    a = Leaf(6)
    spaces.unify([a], [Leaf(2), Leaf(3)])
    assert [leaf.size for leaf in spaces.expand([a])] == [2, 3]
    woven = spaces.weaving([(Leaf(3),), (Leaf(3),)])
    spaces.unify(spaces.concatenation([(Leaf(3),), (Leaf(3),)]), woven)
    assert all(leaf.pinned for leaf in spaces.simple(woven))


def test_a_concatenation_of_equal_parts_splits_into_a_common_space():
    (leaf,) = spaces.concatenation([(Leaf(3),), (Leaf(3),)])
    assert spaces.split_product(leaf, 2)
    first, inner = spaces.expand([leaf])
    assert (first.size, inner.size) == (2, 3)
    assert positions([leaf]) == [[0, 1, 2], [3, 4, 5]]
    assert not spaces.split_product(Leaf(5), 2)


def test_exponents_over_the_rationals_and_over_two_elements():
    for modulus, free in ((0, {"a": 2}), (2, {})):
        system = LinearSystem(modulus)
        for priority, name in enumerate("abc"):
            system.declare(name, priority)
        assert system.add({"b": 1, "a": -1})
        assert system.add({"c": 1, "a": -1, "b": -1})
        assert not system.add({"c": 2, "a": -2, "b": -2})
        assert {name: int(share) for name, share in system.value("c").items()} == free
        assert system.reduce({"a": 1, "b": -1}) == {}
