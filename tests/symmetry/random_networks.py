"""Networks put together from steps drawn at random."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

ACTIVATIONS = [
    torch.relu, torch.tanh, F.silu, torch.abs, lambda h: torch.relu(h) ** 2, torch.sigmoid,
]  # fmt: skip
FLAT_STEPS = [
    "linear", "act", "skip", "cat", "gate", "norm", "groups", "shuffle", "slice", "roll",
    "scale", "pad", "split", "batch", "train", "rms",
]  # fmt: skip
GRID_STEPS = [
    "conv", "act", "skip", "cat", "grouped", "depthwise", "pool", "mean", "batch", "train",
    "instance", "group", "layer", "frn", "rms", "shared", "squeeze", "shuffle",
]  # fmt: skip
TOKEN_STEPS = ["attention", "feed", "norm", "rms", "skip", "act", "position", "gate", "linear"]


class Steps(nn.Module):
    """Steps drawn at random; each works on the features so far and may look back."""

    axis = 1

    def __init__(self, plan, x):
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleDict()
        self.extra = nn.ParameterDict()
        self.start()
        with torch.no_grad():
            self.train()(torch.randn(x.shape) if x.is_floating_point() else x)

    def start(self):
        """Make what all steps share."""

    def layer(self, key, kind, *args, **kwargs):
        if str(key) not in self.layers:
            self.layers[str(key)] = kind(*args, **kwargs)
        return self.layers[str(key)]

    def weight(self, key, *shape):
        if str(key) not in self.extra:
            self.extra[str(key)] = nn.Parameter(torch.ones(shape))
        return self.extra[str(key)]

    def forward(self, x):
        h, past = self.enter(x), []
        for k, (step, number) in enumerate(self.plan):
            if step == "act":
                h = ACTIVATIONS[number % len(ACTIVATIONS)](h)
            elif step == "skip":
                h = next((h + p for p in reversed(past) if p.shape == h.shape), h)
            elif step == "cat" and past and h.shape[self.axis] < 16:
                other = past[number % len(past)]
                if other.shape[self.axis + 1 :] == h.shape[self.axis + 1 :]:
                    h = torch.cat([other, h], self.axis)
            else:
                h = self.step(step, number, k, h)
            past.append(h)
        return self.leave(h)

    def enter(self, x):
        return x


class Flat(Steps):
    """Features without a grid."""

    def start(self):
        self.shared = nn.Linear(4, 4)

    def step(self, step, number, k, h):
        width = h.shape[1]
        if step == "linear" and width == 4 and number % 3 == 0:
            return self.shared(h)
        if step == "linear":
            return self.layer(k, nn.Linear, width, (4, 6, 8)[number % 3])(h)
        if step == "gate" and width % 2 == 0:
            a, b = h.chunk(2, 1)
            return torch.sigmoid(a) * b
        if step == "norm":
            return F.layer_norm(h, (width,))
        if step == "rms":
            return F.rms_norm(h, (width,), self.weight(k, width), 1e-5)
        if step == "batch":
            return self.layer(k, nn.BatchNorm1d, width)(h)
        if step == "train":
            return F.batch_norm(h, None, None, self.weight(k, width), None, training=True)
        if step == "groups" and width % 2 == 0:
            return self.layer(k, nn.Conv1d, width, width, 1, groups=2)(h[..., None])[..., 0]
        if step == "split" and width % 2 == 0:
            a, b = h.chunk(2, 1)
            return torch.cat([torch.tanh(a), b], 1)
        if step == "shuffle" and width % 2 == 0:
            return h.reshape(-1, 2, width // 2).transpose(1, 2).flatten(1)
        if step == "slice" and width > 2:
            return h[:, : width - 1]
        if step == "roll":
            return h.roll(1, 1)
        if step == "scale":
            return h * self.weight(k, width)
        return F.pad(h, (0, 1)) if step == "pad" else h

    def leave(self, h):
        return self.layer("head", nn.Linear, h.shape[1], 3)(h)


class Grid(Steps):
    """Feature maps."""

    def start(self):
        self.shared = nn.Conv2d(4, 4, 1)

    def step(self, step, number, k, h):
        width, grid = h.shape[1], h.shape[2:]
        if step == "conv":
            size = (1, 3)[number % 2]
            return self.layer(k, nn.Conv2d, width, (4, 6)[number % 2], size, padding=size // 2)(h)
        if step == "shared" and width == 4:
            return self.shared(h)
        if step == "grouped" and width % 2 == 0:
            return self.layer(k, nn.Conv2d, width, (4, 8)[number % 2], 1, groups=2)(h)
        if step == "depthwise":
            return self.layer(k, nn.Conv2d, width, width, 1, groups=width, bias=number % 2 == 0)(h)
        if step == "pool" and grid[0] > 2:
            return F.max_pool2d(h, 2, 1)
        if step == "mean" and grid[0] > 2:
            return F.avg_pool2d(h, 2, 1)
        if step == "batch":
            return self.layer(k, nn.BatchNorm2d, width)(h)
        if step == "train":
            scale, shift = self.weight(k, width), self.weight(f"{k} shift", width)
            return F.batch_norm(h, None, None, scale, shift, training=True)
        if step == "instance":
            return self.layer(k, nn.InstanceNorm2d, width, affine=number % 2 == 0)(h)
        if step == "group" and width % 2 == 0:
            return self.layer(k, nn.GroupNorm, 2, width)(h)
        if step == "layer":
            return self.layer(k, nn.GroupNorm, 1, width)(h)
        if step == "frn":
            square = h.pow(2).mean((2, 3), keepdim=True)
            eps = self.weight(k, 1, width, 1, 1).abs()
            return self.weight(f"{k} gain", 1, width, 1, 1) * h * torch.rsqrt(square + eps)
        if step == "rms":
            square = h.pow(2).mean(1, keepdim=True)
            return self.weight(k, 1, width, 1, 1) * h * torch.rsqrt(square + 1e-5)
        if step == "squeeze":
            gate = self.layer(k, nn.Linear, width, width)(h.mean((2, 3)))
            return h * torch.sigmoid(gate)[..., None, None]
        if step == "shuffle" and width % 2 == 0:
            return h.reshape(-1, 2, width // 2, *grid).transpose(1, 2).flatten(1, 2)
        return h

    def leave(self, h):
        h = h.flatten(1) if self.plan[0][1] % 2 else h.mean((2, 3))
        return self.layer("head", nn.Linear, h.shape[1], 3)(h)


class Tokens(Steps):
    """Embedded tokens that attend to one another."""

    axis = 2

    def start(self):
        self.table = nn.Embedding(7, 6)

    def enter(self, x):
        return self.table(x)

    def step(self, step, number, k, h):
        width = h.shape[2]
        if step == "attention":
            heads = 2 if width % 2 == 0 else 1
            layer = self.layer(
                k, nn.MultiheadAttention, width, heads, batch_first=True, bias=number % 3 > 0
            )
            return layer(h, h, h, need_weights=False)[0]
        if step == "feed":
            inner = self.layer(k, nn.Linear, width, 5)(h)
            inner = ACTIVATIONS[number % len(ACTIVATIONS)](inner)
            return h + self.layer(f"{k} out", nn.Linear, 5, width)(inner)
        if step == "norm":
            return self.layer(k, nn.LayerNorm, width)(h)
        if step == "rms":
            return F.rms_norm(h, (width,), self.weight(k, width), 1e-5)
        if step == "position":
            return h + self.weight(k, h.shape[1], width)
        if step == "gate" and width % 2 == 0 and width > 4:
            a, b = h.chunk(2, 2)
            return torch.sigmoid(a) * b
        if step == "linear":
            return self.layer(k, nn.Linear, width, (4, 6)[number % 2])(h)
        return h

    def leave(self, h):
        return self.layer("head", nn.Linear, h.shape[2], 3)(h.mean(1))


KINDS = {
    "flat": (Flat, FLAT_STEPS, torch.zeros(5, 4)),
    "grid": (Grid, GRID_STEPS, torch.zeros(3, 4, 4, 4)),
    "tokens": (Tokens, TOKEN_STEPS, torch.tensor([[0, 3, 5], [1, 6, 2], [4, 4, 0]])),
}


def build(kind, plan, classifies=False):
    """Return a network of a kind, by its plan, and an example input."""
    maker, _, x = KINDS[kind]
    net = maker(plan, x)
    return (nn.Sequential(net, nn.LogSoftmax(-1)) if classifies else net), x
