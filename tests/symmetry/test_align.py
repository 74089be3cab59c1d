"""Alignment is canonical, recovers planted permutations and is judged against its null."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.align import align
from pyro_bnn.symmetry.null import null_control
from pyro_bnn.symmetry.sort import sort


def net(act):
    return nn.Sequential(nn.Linear(6, 10), act(), nn.Linear(10, 8), act(), nn.Linear(8, 3))


def normal(group, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        site: torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for site, shape in group.shapes.items()
    }


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


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
def test_planted_permutations_are_recovered(noise):
    group = discover(net(nn.SiLU), torch.zeros(2, 6))
    reference = {site: v[0] for site, v in normal(group, 1).items()}
    g = group.sample(torch.Generator().manual_seed(3), 50)
    noisy = {site: reference[site] + noise * n for site, n in normal(group, 50, seed=2).items()}
    planted = g.apply(noisy)
    ordered, _ = sort(group, planted)
    found = align(group, ordered, reference)
    recovered = torch.stack(
        [(found.params[s] == noisy[s]).flatten(1).all(-1) for s in group.shapes]
    ).all(0)
    assert recovered.double().mean() >= (1.0 if noise < 0.5 else 0.9)


def test_alignment_overlaps_at_least_as_much_as_weight_matching():
    group = discover(net(nn.SiLU), torch.zeros(2, 6))
    theta, reference = normal(group, 60), {s: v[0] for s, v in normal(group, 1, seed=1).items()}
    ordered, _ = sort(group, theta)
    ours = align(group, ordered, reference).overlap
    theirs = align(group, theta, reference, start="identity").overlap
    assert (ours >= theirs - 1e-9).double().mean() > 0.6
    assert ours.mean() > theirs.mean()


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
