"""What may be added without effect is found, acts, is taken off and comes back."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from pyro_bnn import LogDensity
from pyro_bnn.symmetry import Quotient, SymmetryGroup, discover
from pyro_bnn.symmetry.computation import computation
from pyro_bnn.trace import site_dataset

DRAWS = 6


class Attention(nn.Module):
    """Attention by hand: every projection has a weight of its own."""

    def __init__(self, bias=True):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 6, bias=bias) for _ in range(3))
        self.out = nn.Linear(6, 4)

    def heads(self, x):
        return x.reshape(*x.shape[:2], 2, 3).transpose(1, 2)

    def forward(self, x):
        query, key, value = (self.heads(p(x)) for p in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-1, -2) / 3**0.5, -1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Rotary(Attention):
    """Queries and keys turned by angles that grow with the position."""

    def heads(self, x):
        return x.reshape(*x.shape[:2], 1, 6).transpose(1, 2)

    def turned(self, x):
        angles = torch.arange(x.shape[-2])[:, None] * torch.tensor([1.0, 0.3, 0.1])
        a, b = x[..., :3], x[..., 3:]
        cos, sin = angles.cos().to(x), angles.sin().to(x)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x):
        query, key, value = (self.heads(p(x)) for p in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(self.turned(query), self.turned(key), value)
        return self.out(out.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """A sigmoid that multiplies: its units do not flip."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(torch.sigmoid(self.a(x)) * self.b(x))


def softmaxed():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.LogSoftmax(-1))


def sigmoids():
    return nn.Sequential(
        nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid(),
        nn.Linear(3, 2),
    )  # fmt: skip


def normed(act):
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), act, nn.Linear(5, 2))


def linear():
    return nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 3))


def convolved():
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3))
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 5, 2), nn.Sigmoid(), flat)


ROWS, SEQUENCE, IMAGE = torch.zeros(8, 3), torch.zeros(3, 4, 6), torch.zeros(2, 2, 6, 6)
# network, input, what may be added (site: dimensions), general linear groups
CASES = {
    "softmax": (softmaxed(), ROWS, {"2.weight": 5, "2.bias": 1}, []),
    "sigmoid": (sigmoids(), ROWS, {}, []),
    "convolved sigmoid": (convolved(), IMAGE, {}, []),
    "attention": (Attention(), SEQUENCE, {"key.bias": 6, "value.bias": 6}, [(3, 2), (3, 2)]),
    "no bias": (Attention(bias=False), SEQUENCE, {}, [(3, 2), (3, 2)]),
    "rotary": (Rotary(), SEQUENCE, {"value.bias": 6}, [(6, 1)]),
    "linear": (linear(), ROWS, {"0.bias": 4}, [(4, 1)]),
    "batch norm": (normed(nn.SiLU()), ROWS, {"0.bias": 5}, []),
}


def points(read, sites, count=DRAWS):
    generator = torch.Generator().manual_seed(0)
    drawn = [read.generic_point(generator) for _ in range(count)]
    return {site: torch.stack([point[site] for point in drawn]) for site in sites}


def largest(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in b)


def outputs(read, theta):
    count = next(iter(theta.values())).shape[0]
    return torch.stack([read({n: v[k] for n, v in theta.items()}) for k in range(count)])


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_added_and_laws(name):
    net, x, added, frames = CASES[name]
    group = discover(net, x)
    found: dict[str, int] = {}
    for moved in group.translations.values():
        found[moved.site] = found.get(moved.site, 0) + moved.size
    assert found == added
    assert [(f.size, f.count) for f in group.frames.values()] == frames
    assert not group.rejected
    table = str(group)  # which measures the completeness that is stored
    again = SymmetryGroup.from_json(group.to_json())
    assert again == group
    assert str(again) == table
    for site in added:
        assert f"shift of {site}" in str(group)

    read = computation(net, x)
    theta = points(read, group.shapes)
    generator = torch.Generator().manual_seed(1)
    g, h = (
        group.sample(generator, DRAWS) @ group.sample_frames(generator, DRAWS) for _ in range(2)
    )
    moved = g.apply(theta)
    assert largest({0: outputs(read, moved)}, {0: outputs(read, theta)}) < 1e-10
    assert largest((h @ g).apply(theta), h.apply(moved)) < 1e-10
    assert largest(g.inverse().apply(moved), theta) < 1e-10
    volume = g.log_abs_det + h.log_abs_det
    torch.testing.assert_close((h @ g).log_abs_det, volume, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(g.inverse().log_abs_det, -g.log_abs_det, rtol=1e-10, atol=1e-10)

    quotient = Quotient(group)
    canonical, element = quotient.canonicalize(theta)
    other, _ = quotient.canonicalize(group.sample(generator, DRAWS).apply(theta))
    assert largest(other, canonical) < 1e-8
    assert largest(quotient.canonicalize(canonical)[0], canonical) < 1e-8
    assert largest(element.inverse().apply(canonical), theta) < 1e-10
    assert largest({0: outputs(read, canonical)}, {0: outputs(read, theta)}) < 1e-10


def test_volume_is_that_of_the_map():
    net, x = CASES["attention"][:2]
    group = discover(net, x)
    theta = {
        n: v[:1].requires_grad_() for n, v in points(computation(net, x), group.shapes).items()
    }
    generator = torch.Generator().manual_seed(2)
    g = group.sample(generator) @ group.sample_frames(generator)
    moved = g.apply(theta)
    image = torch.cat([moved[name].flatten() for name in theta])
    rows = []
    for value in image:
        gradients = torch.autograd.grad(
            value, list(theta.values()), retain_graph=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    volume = torch.linalg.slogdet(torch.stack(rows))[1]
    torch.testing.assert_close(g.log_abs_det[0], volume, rtol=1e-9, atol=1e-9)


def test_class_mean_is_zero_at_the_representative():
    net, x = CASES["softmax"][:2]
    group = discover(net, x)
    assert group.shifts == {"2.weight": 0, "2.bias": 0}
    canonical, _ = Quotient(group).canonicalize(points(computation(net, x), group.shapes))
    for site in group.shifts:
        assert float(canonical[site].mean(1).abs().max()) < 1e-12


def test_value_bias_moves_into_the_output_bias():
    net, x = CASES["attention"][:2]
    group = discover(net, x)
    theta = points(computation(net, x), group.shapes)
    quotient = Quotient(group, scaling=None, sign=False, permutation=None)
    canonical, _ = quotient.canonicalize(theta)
    assert float(canonical["key.bias"].abs().max()) == 0.0
    assert float(canonical["value.bias"].abs().max()) == 0.0
    carried = (theta["out.weight"] @ theta["value.bias"][..., None])[..., 0]
    torch.testing.assert_close(canonical["out.bias"], theta["out.bias"] + carried)


def test_sigmoid_units_flip_where_a_bias_takes_up_what_is_left():
    group = discover(*CASES["sigmoid"][:2])
    assert {f.space for f in group.kind("sign").values()} == {"h0", "h2"}
    assert {f.space for f in group.kind("scale").values()} == {"h1"}
    assert "flip of a sigmoid" in str(group)
    assert not discover(Gated(), ROWS).kind("sign").keys() & {"sign of h0 (2)"}
    for last in (nn.Linear(5, 2, bias=False), nn.Tanh()):
        bare = discover(nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), last), ROWS)
        assert not bare.kind("sign")
        assert not bare.shears


def test_a_bias_that_something_else_reads_takes_nothing_up():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.turn = nn.Linear(3, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.turn(torch.sigmoid(self.turn(self.first(x))))

    group = discover(Shared(), ROWS)
    assert not group.shears
    assert not group.rejected


def test_a_gaussian_likelihood_lets_nothing_be_added():
    def model(x, y, categorical):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 5), 1.0).to_event(2))
        v = pyro.sample("v", dist.Normal(torch.zeros(5, 4), 1.0).to_event(2))
        out = torch.tanh(x @ w) @ v
        with pyro.plate("data", len(x)):
            if categorical:
                pyro.sample("y", dist.Categorical(logits=out), obs=y)
            else:
                pyro.sample("y", dist.Normal(out, 1.0).to_event(1), obs=y)

    torch.manual_seed(0)
    x = torch.randn(9, 3)
    free = discover(model, x, torch.arange(9) % 4, True)
    assert free.shifts == {"v": 1}
    assert discover(model, x, torch.randn(9, 4), False).translations == {}


@pytest.mark.parametrize("width", [1.0, 1e6])
def test_what_translations_and_frames_do_to_the_prior_is_said(width):
    """A prior that is flat for all that matters is kept by sums, never by matrices."""

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, 4), width).to_event(2))
        v = pyro.sample("v", dist.Normal(torch.zeros(4, 3), width).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=x @ w @ v), obs=y)

    torch.manual_seed(0)
    group = discover(model, torch.randn(9, 3), torch.arange(9) % 3)
    flat = width > 1
    assert len(group.translations) == len(group.frames) == 1
    assert {group.preserves_prior[name] for name in group.translations} == {flat}
    assert {group.preserves_prior[name] for name in group.frames} == {False}
    said = {line.partition(":")[0]: line for line in str(group).splitlines()}
    (sums,), (matrices,) = group.translations, group.frames
    assert ("likelihood and prior" if flat else "likelihood only") in said[sums]
    assert "likelihood only" in said[matrices]


def test_a_few_biases_are_not_lost_in_the_prior_of_many_weights():
    """What a shift of three biases does is less than the rounding of 400,000 weights' density."""
    calls = []

    def model(x, y):
        calls.append(len(x))
        w = pyro.sample("w", dist.Normal(torch.zeros(2000, 200), 1.0).to_event(2))
        v = pyro.sample("v", dist.Normal(torch.zeros(200, 3), 1.0).to_event(2))
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.tanh(x @ w) @ v + b), obs=y)

    torch.manual_seed(0)
    density = LogDensity(model, torch.randn(9, 2000), torch.arange(9) % 3)
    calls.clear()
    group = discover(density)
    assert group.translations
    assert {name: group.preserves_prior[name] for name in group.translations} == dict.fromkeys(
        group.translations, False
    )
    assert group.preserves_prior["h0"]
    assert group.preserves_prior["sign of h0"]
    # Its two graphs are traced; the network is not evaluated for each generator.
    assert len(calls) == 2


def test_a_trace_gives_back_what_was_taken_off():
    net, x = CASES["attention"][:2]
    group = discover(net, x)
    theta = points(computation(net, x), group.shapes)
    draws = {name: value.reshape(2, 3, *value.shape[1:]) for name, value in theta.items()}
    tree = xr.DataTree.from_dict({"posterior": site_dataset(draws, group.dims)})
    quotient = Quotient(group)
    done = quotient.apply(tree)
    del done["posterior"]
    restored = quotient.restore(done)
    for name, value in draws.items():
        np.testing.assert_allclose(restored[name], value, rtol=1e-9, atol=1e-10)
