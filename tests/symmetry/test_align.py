"""Alignment is canonical, recovers planted elements and is judged against its null."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_bnn.symmetry import GroupElement, Quotient, discover
from pyro_bnn.symmetry.align import align
from pyro_bnn.symmetry.null import null_control
from pyro_bnn.symmetry.overlap import Overlap
from pyro_bnn.symmetry.sort import sort


def net(act):
    return nn.Sequential(nn.Linear(6, 10), act(), nn.Linear(10, 8), act(), nn.Linear(8, 3))


class Attention(nn.Module):
    """Three heads of four: heads permute, and queries, values within each head."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
        self.v, self.o = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x):
        heads = [p(x).unflatten(-1, (3, 4)).transpose(-2, -3) for p in (self.q, self.k, self.v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return self.o(mixed.transpose(-2, -3).flatten(-2))


class Residual(nn.Module):
    """Blocks around one residual stream."""

    def __init__(self, stream=12, hidden=16, blocks=3):
        super().__init__()
        self.first = nn.Linear(4, stream, bias=False)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Linear(stream, hidden), nn.Linear(hidden, stream)])
            for _ in range(blocks)
        )
        self.last = nn.Linear(stream, 3, bias=False)

    def forward(self, x):
        x = self.first(x)
        for inner, outer in self.blocks:
            x = x + outer(torch.relu(inner(torch.relu(x))))
        return self.last(torch.relu(x))


def grouped(*outs):
    layers = [nn.Conv2d(3, 12, 1), nn.SiLU()]
    layers += [nn.Conv2d(12, outs[0], 3, groups=3), nn.SiLU(), nn.Conv2d(outs[0], 4, 1)]
    return nn.Sequential(*layers)


def deep():
    layers = [nn.Linear(16, 20), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Linear(20, 20), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(20, 8))


NETWORKS = {
    "mlp": (lambda: net(nn.SiLU), (2, 6)),
    "tanh": (lambda: net(nn.Tanh), (2, 6)),
    "attention": (Attention, (2, 6, 8)),
    "grouped": (lambda: grouped(18), (2, 3, 6, 6)),
    "residual": (Residual, (2, 4)),
}


def group_of(name):
    build, shape = NETWORKS[name]
    return discover(build(), torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def normal(group, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        site: torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for site, shape in group.shapes.items()
    }


def finite(group, n, seed=0):
    """Draw elements without scales."""
    g = group.sample(torch.Generator().manual_seed(seed), n)
    return GroupElement(group, g.permutations, {}, g.signs, n)


def recovered(group, found, draws):
    """Return the share of draws that came back, every weight of them."""
    same = [torch.isclose(found[s], draws[s]).flatten(1).all(-1) for s in group.shapes]
    return float(torch.stack(same).all(0).double().mean())


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.SiLU])
def test_alignment_does_not_depend_on_labels(act):
    group = discover(net(act), torch.zeros(2, 6))
    theta = normal(group, 40)
    reference = {site: v[0] for site, v in normal(group, 1, seed=1).items()}
    quotient = Quotient(group, permutation="align", reference=reference)
    g = group.sample(torch.Generator().manual_seed(0), 40)
    a, element = quotient.canonicalize(theta)
    b, _ = quotient.canonicalize(g.apply(theta))
    c, _ = quotient.canonicalize(a)
    back = element.inverse().apply(a)
    for site in theta:
        assert torch.allclose(a[site], b[site], rtol=1e-8, atol=1e-8)
        assert torch.allclose(a[site], c[site], rtol=1e-8, atol=1e-8)
        assert torch.allclose(back[site], theta[site], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_planted_elements_are_recovered(name, noise):
    group = group_of(name)
    reference = {site: v[0] for site, v in normal(group, 1).items()}
    noisy = {site: reference[site] + noise * n for site, n in normal(group, 40, seed=2).items()}
    planted = finite(group, 40, seed=3).apply(noisy)
    found = align(group, sort(group, planted)[0], reference)
    # ten or fewer units of ten weights each: at relative noise 1 the best match may be another
    least = 1.0 if noise < 0.5 else 0.9 if noise < 1 else 0.5
    assert recovered(group, found.params, noisy) >= least


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(("build", "inputs"), [(lambda: Residual(30, 50), 4), (deep, 16)])
def test_units_of_many_weights_are_all_recovered_at_every_noise(build, inputs, noise):
    group = discover(build(), torch.zeros(2, inputs))
    reference = {site: v[0] for site, v in normal(group, 1).items()}
    noisy = {site: reference[site] + noise * n for site, n in normal(group, 40, seed=2).items()}
    planted = finite(group, 40, seed=3).apply(noisy)
    found = align(group, sort(group, planted)[0], reference)
    assert recovered(group, found.params, noisy) == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6, 1.0])
def test_a_stream_that_nothing_anchors_is_found_where_weight_matching_is_lost(noise):
    # why weight matching from the labels is not the default: it ends where it starts
    group = discover(Residual(30, 50), torch.zeros(2, 4))

    def loose(n, seed):
        ends = ("first.weight", "last.weight")
        return {s: v * (s not in ends) for s, v in normal(group, n, seed).items()}

    reference = {site: v[0] for site, v in loose(1, 0).items()}
    noisy = {site: reference[site] + noise * n for site, n in loose(50, 1).items()}
    planted = finite(group, 50, seed=3).apply(noisy)
    assert recovered(group, align(group, planted, reference).params, noisy) == 1.0
    matched = align(group, planted, reference, start="identity")
    assert recovered(group, matched.params, noisy) <= (0.4 if noise < 0.5 else 0.1)


def test_alignment_overlaps_at_least_as_much_as_weight_matching():
    group = discover(net(nn.SiLU), torch.zeros(2, 6))
    theta, reference = normal(group, 60), {s: v[0] for s, v in normal(group, 1, seed=1).items()}
    ordered, _ = sort(group, theta)
    ours = align(group, ordered, reference).overlap
    theirs = align(group, theta, reference, start="identity").overlap
    assert (ours >= theirs - 1e-9).double().mean() > 0.6
    assert ours.mean() > theirs.mean()


def test_each_draw_may_have_its_own_reference():
    group = group_of("attention")
    theta, references = normal(group, 6), normal(group, 6, seed=1)
    together = align(group, theta, references)
    for k in range(6):
        alone = align(
            group,
            {s: v[k : k + 1] for s, v in theta.items()},
            {s: v[k] for s, v in references.items()},
        )
        for site in theta:
            assert torch.equal(alone.params[site][0], together.params[site][k])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_derivatives_at_a_vertex_are_those_of_the_overlap(name):
    group = group_of(name)
    theta, reference = normal(group, 5), {s: v[0] for s, v in normal(group, 1, seed=1).items()}
    overlap = Overlap(group, theta, reference)
    g = finite(group, 5, seed=4)
    x = {}
    for mover in overlap.movers.values():
        columns = g.permutations[mover.name]
        if mover.base:
            below = g.permutations[mover.base][..., None]
            columns = (below * mover.fibre + columns).flatten(1)
        x[mover.name] = nn.functional.one_hot(columns, mover.size).double()
        if mover.family is not None:
            x[mover.name] *= g.signs[mover.family][:, None]
    for a, b in zip(overlap.gradients(x).values(), overlap.gradients_at(x).values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    read = overlap.element(group, x)
    assert all(torch.equal(read.permutations[n], p) for n, p in g.permutations.items())
    moved = read.apply(theta)
    inner = sum((moved[s] * reference[s]).flatten(1).sum(-1) for s in group.shapes)
    moving = {s for space in group.permutable.values() for s, _ in space.sites}
    still = sum((theta[s] * reference[s]).flatten(1).sum(-1) for s in set(theta) - moving)
    assert torch.allclose(overlap.value(x), inner - still, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "tanh", "grouped"])
def test_margin_is_the_loss_by_the_cheapest_exchange(name):
    group = group_of(name)
    reference = {site: v[0] for site, v in normal(group, 1).items()}
    draws = {site: reference[site] + 0.2 * n for site, n in normal(group, 3, seed=2).items()}
    found = align(group, draws, reference)
    flat = torch.cat([found.params[s].flatten(1) for s in group.shapes], 1)
    target = torch.cat([reference[s].flatten() for s in group.shapes])
    best = torch.cosine_similarity(flat, target[None], dim=1)
    loss = torch.full((3,), torch.inf, dtype=torch.float64)
    for space in group.permutable.values():
        if any(other.over == space.name for other in group.permutable.values()):
            continue
        for below in range(space.over_size):
            for i in range(space.size):
                for j in range(i):
                    order = torch.arange(space.size).repeat(1, space.over_size, 1)
                    order[0, below, [i, j]] = order[0, below, [j, i]]
                    order = order if space.over else order[0]
                    other = GroupElement(group, {space.name: order}, {}, {}, 1).apply(found.params)
                    flat = torch.cat([other[s].flatten(1) for s in group.shapes], 1)
                    loss = torch.minimum(loss, best - torch.cosine_similarity(flat, target[None]))
    assert (found.margin > 0).all()
    assert (found.margin <= loss + 1e-12).all()
    if name == "mlp":
        assert torch.allclose(found.margin, loss, rtol=1e-9)


def test_prior_draws_look_alike_too():
    group = discover(net(nn.SiLU), torch.zeros(2, 6))
    prior = normal(group, 60)
    center = {s: v[0] for s, v in normal(group, 1, seed=5).items()}
    draws = {s: center[s] + 0.3 * n for s, n in normal(group, 60, seed=6).items()}
    found = null_control(group, draws, prior)
    assert found.null.cosine > 0.1
    assert found.null.common > 1 / 30
    assert found.excess > 0.3
    assert abs(null_control(group, normal(group, 60, seed=9), prior).excess) < 0.1
