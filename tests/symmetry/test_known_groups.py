"""The group found equals the group known, architecture by architecture."""

from __future__ import annotations

import itertools
import math

import known_networks as networks
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.symmetry.computation import computation


def summary(group):
    """Per space: size, size of the space below, sorted kinds of families."""
    found = []
    for space in group.permutable.values():
        kinds = [f.kind[1] for f in group.families.values() if f.space == space.name]
        found.append((space.size, space.over_size, "".join(sorted(kinds))))
    return found


class Residual(nn.Module):
    """Two residual blocks on one stream; the second branch reads the stream through ReLU."""

    def __init__(self, act=torch.relu):
        super().__init__()
        self.act = act
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.a, self.b = nn.Linear(8, 5), nn.Linear(5, 8)
        self.c, self.d = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.b(self.act(self.a(self.act(x))))
        x = x + self.d(self.act(self.c(self.act(x))))
        return self.head(x)


class Dense(nn.Module):
    """Every layer reads the concatenation of all before it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.layers = nn.ModuleList([nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(9, 6, 3, padding=1)])
        self.head = nn.Linear(15, 2)

    def forward(self, x):
        x = F.relu(self.first(x))
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return self.head(x.mean((2, 3)))


class Gated(nn.Module):
    """A gate split off the hidden layer: SwiGLU."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 14), nn.Linear(7, 3)

    def forward(self, x):
        a, b = self.up(x).chunk(2, -1)
        return self.down(F.silu(a) * b)


class Shared(nn.Module):
    """One weight matrix used twice: its two spaces are one."""

    def __init__(self):
        super().__init__()
        self.embed, self.turn, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.tanh(self.embed(x))
        for _ in range(2):
            x = torch.tanh(self.turn(x))
        return self.head(x)


class FilterResponse(nn.Module):
    """Filter response normalisation with a learned eps, whose own sign is a symmetry too."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)
        self.gamma, self.beta = (
            nn.Parameter(torch.ones(1, 6, 1, 1)),
            nn.Parameter(torch.zeros(1, 6, 1, 1)),
        )
        self.eps = nn.Parameter(torch.full((1, 6, 1, 1), 0.1))

    def forward(self, x):
        x = self.conv(x)
        x = x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + self.eps.abs())
        return self.head(F.silu(self.gamma * x + self.beta).mean((2, 3)))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 5), nn.Linear(5, 3)

    def forward(self, index):
        return self.head(self.table(index).mean(1))


class Experts(nn.Module):
    """A softmax over experts, unit by unit: experts change places at each unit on their own."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 15), nn.Linear(15, 2)

    def forward(self, x):
        return self.down(torch.softmax(self.up(x).unflatten(-1, (3, 5)), 1).flatten(1))


class Members(nn.Module):
    """Three networks side by side, averaged: members permute, and units within each."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(3, 4, 5)), nn.Parameter(torch.randn(3, 5, 2))

    def forward(self, x):
        return (torch.tanh(x @ self.a) @ self.b).mean(0)


def conv_net(*middle):
    head = [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *middle, *head)


def grouped():
    first, second, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 1, groups=4), nn.Conv2d(12, 2, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


IMAGE = torch.zeros(2, 3, 8, 8)
CASES = {
    "residual ReLU": (Residual(), torch.zeros(4, 3), [(8, 1, "c"), (5, 1, "c"), (6, 1, "c")]),
    "residual tanh": (
        Residual(torch.tanh), torch.zeros(4, 3), [(8, 1, "i"), (5, 1, "i"), (6, 1, "i")]
    ),
    "conv, pool, flatten": (conv_net(), IMAGE, [(8, 1, "c")]),
    "batch norm": (conv_net(nn.BatchNorm2d(8)), IMAGE, [(8, 1, "cci")]),
    "instance norm": (conv_net(nn.InstanceNorm2d(8, affine=True)), IMAGE, [(8, 1, "ci")]),
    "group norm": (conv_net(nn.GroupNorm(2, 8)), IMAGE, [(2, 1, "i"), (4, 2, "c")]),
    "depthwise": (conv_net(nn.ReLU(), nn.Conv2d(8, 8, 1, groups=8)), IMAGE, [(8, 1, "cc")]),
    "grouped": (grouped(), IMAGE, [(4, 1, ""), (2, 4, "c"), (3, 4, "c")]),
    "dense": (Dense(), IMAGE, [(4, 1, "c"), (5, 1, "c"), (6, 1, "c")]),
    "gate": (Gated(), torch.zeros(3, 4), [(7, 1, "ci")]),
    "shared": (Shared(), torch.zeros(3, 3), [(6, 1, "i")]),
    "filter response norm": (FilterResponse(), IMAGE, [(6, 1, "cii")]),
    "embedding": (Embedded(), torch.tensor([[0, 3], [8, 2]]), [(5, 1, "ci")]),
    "members": (Members(), torch.zeros(7, 4), [(3, 1, ""), (5, 3, "i")]),
    "experts": (Experts(), torch.zeros(7, 4), [(3, 5, ""), (5, 1, "")]),
    "LSTM": (networks.Recurrent(nn.LSTM), torch.zeros(2, 5, 4), [(6, 1, "i")]),
    "GRU": (networks.Recurrent(nn.GRU), torch.zeros(2, 5, 4), [(6, 1, "i")]),
    "transformer": (
        nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True),
        torch.zeros(2, 5, 12),
        [(3, 1, ""), (4, 3, "ci"), (4, 3, "ci"), (20, 1, "c")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_group_and_laws(name):
    net, x, expected = CASES[name]
    group = discover(net, x)
    assert summary(group) == expected
    assert not group.unruled
    assert not group.rejected

    read = computation(net, x)
    generator = torch.Generator().manual_seed(0)
    points = [read.generic_point(generator) for _ in range(4)]
    theta = {site: torch.stack([p[site] for p in points]) for site in group.shapes}
    g, h = (group.sample(generator, batch=4) for _ in range(2))
    moved = g.apply(theta)
    for k in range(4):
        before = read({n: v[k] for n, v in theta.items()})
        after = read({n: v[k] for n, v in moved.items()})
        assert torch.allclose(before, after, rtol=1e-10, atol=1e-10 * float(before.abs().max()))
    for a, b in (((h @ g).apply(theta), h.apply(moved)), (g.inverse().apply(moved), theta)):
        assert all(torch.allclose(a[n], b[n], rtol=1e-10, atol=1e-12) for n in theta)
    quotient = Quotient(group)
    a, element = quotient.canonicalize(theta)
    b, _ = quotient.canonicalize(moved)
    again, _ = quotient.canonicalize(a)
    restored = element.inverse().apply(a)
    for site in theta:
        assert torch.allclose(a[site], b[site], rtol=1e-8, atol=1e-8)
        assert torch.allclose(a[site], again[site], rtol=1e-8, atol=1e-8)
        assert torch.allclose(restored[site], theta[site], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["residual ReLU", "shared", "gate", "embedding", "members"])
def test_no_swap_of_two_positions_was_missed(name):
    """Brute force: swap two positions of one axis name everywhere that it occurs."""
    net, x, _ = CASES[name]
    group = discover(net, x)
    read = computation(net, x)
    point = read.generic_point(torch.Generator().manual_seed(3))
    before = read(point)
    axes = [(site, axis) for site, shape in group.shapes.items() for axis in range(len(shape))]
    for count in (1, 2, 3):
        for chosen in itertools.combinations(axes, count):
            sizes = {group.shapes[site][axis] for site, axis in chosen}
            if len(sizes) > 1 or min(sizes) < 2:
                continue
            swapped = dict(point)
            for site, axis in chosen:
                order = torch.arange(group.shapes[site][axis])
                order[:2] = torch.tensor([1, 0])
                swapped[site] = swapped[site].index_select(axis, order)
            if torch.allclose(read(swapped), before, rtol=1e-9, atol=1e-9):
                found = {group.dims[site][axis] for site, axis in chosen}
                assert len(found) == 1, chosen
                assert found <= set(group.permutable), chosen


def test_scales_with_a_prior_of_their_own():
    """A hierarchical model: the likelihood reads the product of a scale and raw weights."""

    def model(x, y):
        tau = pyro.sample("tau", dist.HalfNormal(torch.ones(4)).to_event(1))
        raw = pyro.sample("raw", dist.Normal(torch.zeros(4, 6), 1.0).to_event(2))
        w2 = pyro.sample("w2", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("y", dist.Normal(torch.tanh(x @ (tau[:, None] * raw)) @ w2, 1.0), obs=y)

    torch.manual_seed(0)
    group = discover(model, torch.randn(9, 4), torch.randn(9))
    assert summary(group) == [(6, 1, "i")]
    assert {f.space: f.size for f in group.kind("scale").values()} == {"x0": 4}


def sizes(group):
    return sorted(space.size for space in group.permutable.values())


def number(group, kind):
    return sum(family.size for family in group.kind(kind).values())


def mlp(act):
    return nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 5), act, nn.Linear(5, 3))


GREY, COLOUR = torch.zeros(2, 1, 28, 28), torch.zeros(1, 3, 64, 64)
FRN_CHANNELS = 7 * 16 + 6 * 32 + 6 * 64
# network, input, (size, size below) of every space, log |G|, scales, signs
KNOWN = {
    "MLP ReLU": (mlp(nn.ReLU()), torch.zeros(6, 4), [(8, 1), (5, 1)], 13, 0),
    "MLP tanh": (mlp(nn.Tanh()), torch.zeros(6, 4), [(8, 1), (5, 1)], 0, 13),
    "MLP sigmoid": (mlp(nn.Sigmoid()), torch.zeros(6, 4), [(8, 1), (5, 1)], 0, 13),
    # units within each of two groups; the groups differ by what they read, so they exchange
    "OptuNet": (networks.OptuNet(), GREY, [(2, 1), (5, 2)], 12, 0),
    "LeNet-5": (networks.lenet(), GREY, [(6, 1), (16, 1), (120, 1), (84, 1)], 0, 226),
    # every norm forgets a scale of its channel, flips with it, and its eps has a sign
    "ResNet-20-FRN-SiLU": (
        networks.ResNetFRN(), torch.zeros(1, 3, 8, 8),
        [(16, 1)] * 4 + [(32, 1)] * 4 + [(64, 1)] * 4, FRN_CHANNELS, 2 * FRN_CHANNELS,
    ),
    "LSTM": (networks.Recurrent(nn.LSTM), torch.zeros(2, 5, 4), [(6, 1)], 0, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", list(KNOWN))
def test_known_group(name):
    net, x, spaces, scales, signs = KNOWN[name]
    group = discover(net, x)
    found = [(space.size, space.over_size) for space in group.permutable.values()]
    assert sorted(found) == sorted(spaces)
    assert (group.scale_dim, number(group, "sign")) == (scales, signs)
    finite = sum(over * math.lgamma(size + 1) for size, over in spaces) + signs * math.log(2)
    assert group.log_order == pytest.approx(finite)
    assert not group.unruled
    assert not group.rejected


def test_optunet_runs_where_it_should():
    net, x = KNOWN["OptuNet"][:2]
    assert sum(p.numel() for p in net.parameters()) == 392
    group = discover(net, x)
    assert group.spaces["h0"].sites == [
        ("first.weight", 0),
        ("second.weight", 0),
        ("head.weight", 1),
    ]
    assert group.spaces["h1"].over == "h0"
    assert group.spaces["h1"].sites == [("second.weight", 0), ("head.weight", 1)]


DENSE = [64, 128, 256, 512] + [32, 128] * (6 + 12 + 24 + 16)
MOBILE = [32, 16, 24, 32, 64, 96, 160, 320, 1280]
MOBILE += [96] + [144] * 2 + [192] * 3 + [384] * 4 + [576] * 3 + [960] * 3
SHUFFLE = networks.shuffle_classes([24, 116, 232, 464, 1024], [4, 8, 4])
TORCHVISION = {
    "vgg11_bn": [64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096],
    "resnet18": [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3,
    "densenet121": DENSE,
    "mobilenet_v2": MOBILE,
    "shufflenet_v2_x1_0": [n for n in SHUFFLE if n > 1],
    "vit_b_16": [12, 64, 64, 3072] * 12 + [768],
    "squeezenet1_1": None,
    "efficientnet_b0": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TORCHVISION))
def test_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    net = getattr(models, name)(weights=None)
    group = discover(net, torch.zeros(1, 3, 224, 224) if name == "vit_b_16" else COLOUR)
    assert not group.unruled
    assert not group.rejected
    assert group.certificate <= 1e-10
    if TORCHVISION[name] is not None:
        assert sizes(group) == sorted(TORCHVISION[name])
    norms = sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    rectified = sum(space.size for space in group.permutable.values())
    if name == "resnet18":
        # each norm forgets a scale and flips; each ReLU lets a scale through
        assert (group.scale_dim, number(group, "sign")) == (norms + rectified, norms)
        # what two branches add to a stream may be shared out between them
        assert group.shift_dim == 128 + 256 + 512
    if name == "vgg11_bn":
        assert (group.scale_dim, number(group, "sign")) == (norms + rectified, norms)
        assert group.shift_dim == norms
    if name == "vit_b_16":
        # queries with keys, and values with outputs, in each of 12 heads of 12 layers
        assert len(group.frames) == 24
        assert group.frame_dim == 24 * 12 * (64**2 - 64)
