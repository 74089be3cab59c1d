"""Every way to match draws is a law-abiding map; each names what it needs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.symmetry import GroupElement, Quotient, activations, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.symmetry.nearest_neighbour import greedy, hyperplane

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(7))
NETS = {
    "tanh": nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)
    ),
    "relu": nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)),
}
GROUPS = {name: discover(net, X) for name, net in NETS.items()}
CANONICAL = [
    ("align", "barycentre"),
    ("align", "first"),
    ("align", "previous"),
    ("activation-matching", "barycentre"),
    ("activation-matching", "first"),
    ("activation-matching", "previous"),
    ("nearest-neighbour", "barycentre"),
]


def around(group, n, noise, seed=0):
    """Draw around one point, in chains that each have labels of their own."""
    generator = torch.Generator().manual_seed(seed)

    def normal(count, shape):
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    return {s: normal(1, shape) + noise * normal(n, shape) for s, shape in group.shapes.items()}


def quotient_of(name, method, reference="barycentre"):
    group = GROUPS[name]
    seen = activations(group, NETS[name], X) if method == "activation-matching" else None
    return Quotient(group, permutation=method, reference=reference, activations=seen)


def outputs(name, params):
    read = computation(NETS[name], X)
    return torch.stack(
        [read({s: v[k] for s, v in params.items()}) for k in range(len(params["0.bias"]))]
    )


@pytest.mark.parametrize(("method", "reference"), CANONICAL)
@pytest.mark.parametrize("name", list(NETS))
def test_matching_does_not_depend_on_labels(name, method, reference):
    group = GROUPS[name]
    theta = around(group, 30, 0.3)
    g = group.sample(torch.Generator().manual_seed(0), 30)
    a, element = quotient_of(name, method, reference).canonicalize(theta)
    b, _ = quotient_of(name, method, reference).canonicalize(g.apply(theta))
    back = element.inverse().apply(a)
    for site in theta:
        assert torch.allclose(a[site], b[site], rtol=1e-8, atol=1e-8)
        assert torch.allclose(back[site], theta[site], rtol=1e-10, atol=1e-10)
    before, after = outputs(name, theta), outputs(name, a)
    assert torch.allclose(before, after, rtol=1e-9, atol=1e-9 * float(before.abs().max()))


@pytest.mark.parametrize(("method", "reference"), CANONICAL)
@pytest.mark.parametrize("name", list(NETS))
def test_planted_labels_are_found(name, method, reference):
    group = GROUPS[name]
    theta = around(group, 30, 0.1)
    g = group.sample(torch.Generator().manual_seed(0), 30)
    planted = GroupElement(group, g.permutations, {}, g.signs, 30).apply(theta)
    found, _ = quotient_of(name, method, reference).canonicalize(planted)
    flat = torch.cat([found[s].flatten(1) for s in group.shapes], 1)
    # all draws lie around one point again
    assert float(flat.var(0).sum() / flat.square().sum(1).mean()) < 0.05


@pytest.mark.parametrize("method", ["align", "activation-matching"])
def test_chains_are_followed_on_their_own_across_blocks(method):
    quotient = quotient_of("tanh", method, "previous")
    theta = around(GROUPS["tanh"], 24, 0.5)
    whole = quotient.reduce(theta, chains=2)
    blocks = {s: v.reshape(2, 12, *v.shape[1:]) for s, v in theta.items()}
    first = quotient.reduce({s: v[:, :5].flatten(0, 1) for s, v in blocks.items()}, 2)
    second = quotient.reduce({s: v[:, 5:].flatten(0, 1) for s, v in blocks.items()}, 2, first.last)
    for site, value in whole.params.items():
        pieces = [part.params[site].reshape(2, -1, *value.shape[1:]) for part in (first, second)]
        assert torch.allclose(torch.cat(pieces, 1).flatten(0, 1), value)
    alone = quotient.reduce({s: v[1] for s, v in blocks.items()})
    for site, value in whole.params.items():
        assert torch.allclose(alone.params[site], value[12:])


def test_a_draw_that_is_not_finite_is_passed_over():
    theta = around(GROUPS["tanh"], 8, 0.3)
    broken = {s: v.clone() for s, v in theta.items()}
    broken["0.weight"][3, 2, 1] = torch.nan
    quotient = quotient_of("tanh", "align", "previous")
    result = quotient.reduce(broken)
    kept = [0, 1, 2, 4, 5, 6, 7]
    without = quotient.reduce({s: v[kept] for s, v in theta.items()})
    for site, value in result.params.items():
        assert torch.equal(value[kept], without.params[site])
        assert torch.equal(value[3].nan_to_num(), broken[site][3].nan_to_num())


def test_aligning_to_the_predecessor_makes_smaller_steps_than_sorting():
    group = GROUPS["tanh"]
    generator = torch.Generator().manual_seed(0)
    walk = {
        s: torch.randn(40, *shape, generator=generator, dtype=torch.float64).mul(0.1).cumsum(0)
        for s, shape in group.shapes.items()
    }
    steps = {}
    for method in ("sort", "align"):
        found, _ = Quotient(group, permutation=method, reference="previous").canonicalize(walk)
        steps[method] = sum(float(v.diff(dim=0).square().sum()) for v in found.values())
    assert steps["align"] < 0.5 * steps["sort"]


def test_convolutions_in_groups_are_matched_by_what_they_compute():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 9, 2, groups=3), nn.Tanh(), nn.Conv2d(9, 2, 1)
    )
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    group = discover(net, x)
    theta = around(group, 12, 0.5)
    g = group.sample(torch.Generator().manual_seed(0), 12)
    seen = activations(group, net, x)
    a, b = (
        Quotient(group, permutation="activation-matching", activations=seen).canonicalize(draws)[0]
        for draws in (theta, g.apply(theta))
    )
    assert all(torch.allclose(a[s], b[s], rtol=1e-8, atol=1e-8) for s in theta)


@pytest.mark.parametrize("method", ["align", "activation-matching"])
def test_a_given_draw_is_a_reference_as_one_that_is_learnt(method):
    """Also where biases take up what the flips of a sigmoid leave over."""
    net = nn.Sequential(
        nn.Linear(6, 10), nn.Sigmoid(), nn.Linear(10, 8), nn.Sigmoid(), nn.Linear(8, 3)
    )
    group = discover(net, X)
    theta = around(group, 30, 0.5)
    g = group.sample(torch.Generator().manual_seed(0), 30)
    seen = activations(group, net, X) if method == "activation-matching" else None
    draws, _ = Quotient(group).canonicalize(g.apply(theta))
    given = {site: value[0] for site, value in draws.items()}
    a, b = (
        Quotient(group, permutation=method, reference=reference, activations=seen).reduce(draws)
        for reference in ("first", given)
    )
    assert torch.allclose(a.margin, b.margin)
    for site, value in a.params.items():
        assert torch.allclose(value, b.params[site], rtol=1e-8, atol=1e-8)


def test_what_a_method_needs_is_named():
    group = GROUPS["tanh"]
    theta = around(group, 2, 0.1)
    with pytest.raises(UserError, match="activations"):
        Quotient(group, permutation="activation-matching").canonicalize(theta)
    with pytest.raises(UserError, match="reference"):
        Quotient(group, permutation="align", reference="last")
    with pytest.raises(UserError, match="another network"):
        activations(group, nn.Linear(4, 2), torch.zeros(1, 4))


def test_hyperplane_keeps_clusters_of_free_sign_together():
    generator = torch.Generator().manual_seed(0)
    center = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    points = center + 0.2 * torch.randn(200, 3, generator=generator, dtype=torch.float64)
    signs = 1 - 2 * torch.randint(2, (200, 1), generator=generator)
    normal = hyperplane(points * signs)
    side = torch.where(points @ normal < 0, -1, 1)
    assert (side == side[0]).all()


def test_labels_are_given_out_surest_first():
    votes = torch.tensor([[[0.9, 0.1, 0.0], [0.95, 0.05, 0.0], [0.2, 0.3, 0.5]]])
    assert greedy(votes).tolist() == [[1, 0, 2]]
