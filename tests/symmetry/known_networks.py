"""Networks of the literature whose symmetry groups are known, small enough to test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class OptuNet(nn.Module):
    """The network of 392 weights on which posterior symmetries were counted."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 4, bias=False)
        self.second = nn.Conv2d(2, 10, 5, groups=2, bias=False)
        self.head = nn.Linear(10, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 3)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def lenet():
    """Return LeNet-5 with tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


class FilterResponseNorm(nn.Module):
    """Divide every channel by its root mean square over the grid; the eps is learned."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.eps = nn.Parameter(torch.full((1, channels, 1, 1), 0.1))

    def forward(self, x):
        square = x.pow(2).mean((2, 3), keepdim=True)
        return self.gamma * x * torch.rsqrt(square + self.eps.abs()) + self.beta


class Block(nn.Module):
    """A basic residual block; a stride brings a projection of the stream."""

    def __init__(self, m, n, stride):
        super().__init__()
        self.a, self.b = (
            nn.Conv2d(m, n, 3, stride, padding=1, bias=False),
            nn.Conv2d(n, n, 3, padding=1, bias=False),
        )
        self.norm_a, self.norm_b = FilterResponseNorm(n), FilterResponseNorm(n)
        self.project = nn.Conv2d(m, n, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        inner = self.norm_b(self.b(F.silu(self.norm_a(self.a(x)))))
        return F.silu(inner + self.project(x))


class ResNetFRN(nn.Module):
    """ResNet-20 with filter response norm and SiLU, the network of the HMC reference."""

    def __init__(self, width=16, depth=3):
        super().__init__()
        self.first, self.norm = (
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            FilterResponseNorm(width),
        )
        blocks, m = [], width
        for stage in range(3):
            n = width * 2**stage
            for k in range(depth):
                blocks.append(Block(m, n, 2 if stage and not k else 1))
                m = n
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(m, 10)

    def forward(self, x):
        x = self.blocks(F.silu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """One recurrent layer and a head on its last state."""

    def __init__(self, kind):
        super().__init__()
        self.cells, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def shuffle_classes(widths, repeats):
    """Follow every channel of a ShuffleNet-V2 by name; return the sizes of its classes.

    Two channels can be exchanged if and only if the same convolutions read them: where they
    lie within what a convolution reads does not matter, its weights move along.

    Parameters
    ----------
    widths : sequence of int
        Channels after the first convolution, of each stage, and of the last convolution.
    repeats : sequence of int
        Units of each stage.
    """
    readers: dict[int, set] = {}

    def made(count, kind):
        start = len(readers)
        readers.update({start + k: {kind} for k in range(count)})
        return list(range(start, start + count))

    def shuffled(channels):
        half = len(channels) // 2
        return [c for pair in zip(channels[:half], channels[half:], strict=True) for c in pair]

    x = made(widths[0], "first")
    for stage, (width, count) in enumerate(zip(widths[1:-1], repeats, strict=True)):
        half = width // 2
        for unit in range(count):
            name = (stage, unit)
            if unit:
                kept, read = x[: len(x) // 2], x[len(x) // 2 :]
            else:
                for c in x:
                    readers[c].add((*name, "branch1"))
                kept, read = made(half, (*name, "out1")), x
            for c in read:
                readers[c].add((*name, "branch2"))
            made(half, (*name, "inner"))
            x = shuffled(kept + made(half, (*name, "out2")))
    for c in x:
        readers[c].add("last")
    made(widths[-1], "features")
    classes: dict[frozenset, int] = {}
    for kinds in readers.values():
        key = frozenset(kinds)
        classes[key] = classes.get(key, 0) + 1
    return sorted(classes.values())
