"""Discovery on randomly wired networks: it never crashes, invents nothing and obeys the laws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyro_bnn.symmetry import Quotient, SymmetryGroup, discover
from pyro_bnn.symmetry.computation import computation

ACTIVATIONS = [
    torch.relu, torch.tanh, F.silu, torch.abs, lambda h: torch.relu(h) ** 2, torch.sigmoid,
]  # fmt: skip
STEPS = [
    "linear", "act", "skip", "cat", "gate", "norm", "groups", "shuffle", "slice", "roll",
    "scale", "pad", "split",
]  # fmt: skip


class Random(nn.Module):
    """Steps drawn at random; each works on the features so far and may look back."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleDict()
        self.extra = nn.ParameterDict()
        self.shared = nn.Linear(4, 4)
        with torch.no_grad():
            self.forward(torch.randn(3, 4))

    def linear(self, key, m, n):
        if key not in self.layers:
            self.layers[key] = nn.Linear(m, n)
        return self.layers[key]

    def forward(self, x):
        h, past = x, []
        for k, (step, number) in enumerate(self.plan):
            width = h.shape[1]
            if step == "linear" and width == 4 and number % 3 == 0:
                h = self.shared(h)
            elif step == "linear":
                h = self.linear(str(k), width, (4, 6, 8)[number % 3])(h)
            elif step == "act":
                h = ACTIVATIONS[number % len(ACTIVATIONS)](h)
            elif step == "skip":
                h = next((h + p for p in reversed(past) if p.shape == h.shape), h)
            elif step == "cat" and past and width < 16:
                h = torch.cat([past[number % len(past)], h], 1)
            elif step == "gate" and width % 2 == 0:
                a, b = h.chunk(2, 1)
                h = torch.sigmoid(a) * b
            elif step == "norm":
                h = F.layer_norm(h, (width,))
            elif step == "groups" and width % 2 == 0:
                if str(k) not in self.layers:
                    self.layers[str(k)] = nn.Conv1d(width, width, 1, groups=2)
                h = self.layers[str(k)](h[..., None])[..., 0]
            elif step == "split" and width % 2 == 0:
                a, b = h.chunk(2, 1)
                h = torch.cat([torch.tanh(a), b], 1)
            elif step == "shuffle" and width % 2 == 0:
                h = h.reshape(-1, 2, width // 2).transpose(1, 2).flatten(1)
            elif step == "slice" and width > 2:
                h = h[:, : width - 1]
            elif step == "roll":
                h = h.roll(1, 1)
            elif step == "scale":
                if str(k) not in self.extra:
                    self.extra[str(k)] = nn.Parameter(torch.ones(width))
                h = h * self.extra[str(k)]
            elif step == "pad":
                h = F.pad(h, (0, 1))
            past.append(h)
        return self.linear("head", h.shape[1], 3)(h)


plans = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 60)), min_size=2, max_size=9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(plans, st.booleans())
def test_laws_on_random_networks(plan, classifies):
    net, x = Random(plan), torch.zeros(5, 4)
    net = nn.Sequential(net, nn.LogSoftmax(-1)) if classifies else net
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


def close(a, b, tolerance):
    return all(torch.allclose(a[n], b[n], rtol=tolerance, atol=tolerance) for n in b)
