"""Rotary embeddings: what acts on the planes is certified, and the rest is named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.computation import computation

X = torch.zeros(3, 4, 6)


def halves(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rotate_half(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * torch.cat([cos, cos], -1) + torch.cat([-b, a], -1) * torch.cat([sin, sin], -1)


def interleaved(x, cos, sin):
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def as_complex(x, cos, sin):
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.complex(cos, sin)).flatten(-2)


class Rotary(nn.Module):
    """Two heads of three planes, turned by angles that grow with the position."""

    def __init__(self, turn):
        super().__init__()
        self.turn = turn
        self.query, self.key = nn.Linear(6, 12), nn.Linear(6, 12)
        self.value, self.out = nn.Linear(6, 12), nn.Linear(12, 4)

    def heads(self, x):
        return x.unflatten(-1, (2, 6)).transpose(1, 2)

    def forward(self, x):
        angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.3, 0.1])
        cos, sin = angles.cos().to(x), angles.sin().to(x)
        query, key, value = (self.heads(p(x)) for p in (self.query, self.key, self.value))
        query, key = self.turn(query, cos, sin), self.turn(key, cos, sin)
        result = F.scaled_dot_product_attention(query, key, value)
        return self.out(result.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("turn", [halves, rotate_half, interleaved, as_complex])
def test_what_acts_is_exact_and_the_rest_is_named(turn):
    net = Rotary(turn)
    group = discover(net, X)
    assert not group.rejected
    value = next(s for s in group.spaces.values() if ("value.weight", 0) in s.sites and s.over)
    assert (value.size, value.over_size, value.permutable) == (6, 2, True)
    planes = [
        family.size
        for family in group.kind("scale").values()
        if {term.site for term in family.terms} >= {"query.weight", "key.weight"}
    ]
    if turn in (halves, rotate_half):
        assert planes == [6]  # three planes in each of two heads
        assert "rotary embeddings" in str(group)
    if turn is as_complex:
        assert "aten.view_as_complex" in str(group)
    assert "order fixed by outputs, data or constants: query.weight[0]" in str(group)
    read, generator = computation(net, X), torch.Generator().manual_seed(0)
    theta = {s: v[None] for s, v in read.generic_point(generator).items()}
    moved = group.sample(generator).apply(theta)
    before, after = (read({s: v[0] for s, v in t.items()}) for t in (theta, moved))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    a, b = (Quotient(group).canonicalize(t)[0] for t in (theta, moved))
    assert all(torch.allclose(a[s], b[s], rtol=1e-8, atol=1e-8) for s in a)
