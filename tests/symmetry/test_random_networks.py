"""Discovery on randomly wired networks: it never crashes, invents nothing and obeys the laws."""

from __future__ import annotations

import random

import pytest
import random_networks as networks
import torch

from pyro_bnn.symmetry import Quotient, SymmetryGroup, discover
from pyro_bnn.symmetry.computation import computation


def drawn(kind, seed):
    """Return a network of a kind, wired by a seed, and an example input."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    steps = networks.KINDS[kind][1]
    plan = [(chance.choice(steps), chance.randint(0, 60)) for _ in range(chance.randint(2, 9))]
    return networks.build(kind, plan, chance.random() < 0.5)


def obeys(net, x):
    """Check every law on three draws."""
    group = discover(net, x)
    assert not group.unruled
    assert not group.rejected
    read = computation(net, x)
    generator = torch.Generator().manual_seed(0)
    points = [read.generic_point(generator) for _ in range(3)]
    theta = {site: torch.stack([p[site] for p in points]) for site in group.shapes}
    g = group.sample(generator, batch=3)
    moved = g.apply(theta)
    quotient = Quotient(group)
    a, element = quotient.canonicalize(theta)
    b, _ = quotient.canonicalize(moved)
    again, _ = quotient.canonicalize(a)
    turned = group.sample_frames(generator, batch=3).apply(theta)
    for k in range(3):
        before = read({n: v[k] for n, v in theta.items()})
        bound = 1e-10 * float(before.abs().max())
        for other in (moved, turned, a):
            after = read({n: v[k] for n, v in other.items()})
            assert torch.allclose(before, after, rtol=1e-10, atol=bound)
    assert close(g.inverse().apply(moved), theta, 1e-10)
    assert close(element.inverse().apply(a), theta, 1e-10)
    assert close(a, b, 1e-8)
    assert close(a, again, 1e-8)
    assert SymmetryGroup.from_json(group.to_json()) == group


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", list(networks.KINDS))
def test_laws(kind, seed):
    obeys(*drawn(kind, seed))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 400, 50))
@pytest.mark.parametrize("kind", list(networks.KINDS))
def test_laws_on_hundreds(kind, start):
    for seed in range(start, start + 50):
        try:
            obeys(*drawn(kind, seed))
        except AssertionError as error:
            raise AssertionError(f"{kind} network of seed {seed}") from error


# Wirings that once broke a law: what no weight leads to but statistics, a mean of zero over two
# units that also flip, a learnt eps behind a norm, attention that makes all tokens one.
HARD = [
    ("flat", [("scale", 53), ("batch", 38), ("slice", 1)]),
    ("flat", [("norm", 0), ("batch", 22), ("linear", 36), ("gate", 27), ("norm", 23)]),
    ("flat", [("gate", 33), ("gate", 36), ("norm", 14), ("batch", 51)]),
    ("grid", [("conv", 12), ("batch", 46), ("frn", 23)]),
    ("tokens", [("attention", 33), ("attention", 10), ("rms", 1), ("attention", 56), ("norm", 54)]),
]


@pytest.mark.parametrize(("kind", "plan"), HARD)
def test_laws_on_hard_wirings(kind, plan):
    torch.manual_seed(0)
    obeys(*networks.build(kind, plan))


def close(a, b, tolerance):
    return all(torch.allclose(a[n], b[n], rtol=tolerance, atol=tolerance) for n in b)
