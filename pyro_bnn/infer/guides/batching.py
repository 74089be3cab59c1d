"""How many members are trained at once, and why."""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import torch
from torch.overrides import TorchFunctionMode

from pyro_bnn.halving import Halving
from pyro_bnn.infer.guides.descent import example_nodes
from pyro_bnn.infer.guides.seeds import generators
from pyro_bnn.logdensity import LogDensity

__all__ = ["Batching", "choose_batching"]

_BLOCK_BYTES = 2**28
_COPIES = 10  # of a member's parameters: gradient, moments and what passes between operators
_MOST = 64
_TRIED = 8
_STEPS = 5

_CONVOLUTIONS = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
}


class Batching(NamedTuple):
    """Members that are trained at once, and the reason in words."""

    block: int
    reason: str


class Measured(Protocol):
    """What the choice asks of a guide."""

    size: int
    block: int | None

    def numbers(self, density: LogDensity) -> int:
        """Numbers that a member keeps."""

    def take_step(self, density: LogDensity, sources: Any) -> Any:
        """Return a function that computes one gradient of some members."""


def choose_batching(guide: Measured, density: LogDensity) -> Batching:
    """Choose the members of a block: what was asked for, what fits, or what is faster.

    Stacked members share the cost of every operator, so that as many are trained at once as fit
    some 256 MB, 64 at most. Stacked convolutions may be slower on a CPU than one after another:
    there a step of 8 members and one of a single member are measured. Where activations of so many
    do not fit into memory the measured members are halved, and no more are trained at once.

    Raises
    ------
    OutOfMemory
        If a step of a single member does not fit.
    """
    if guide.block is not None:
        return Batching(guide.block, "as asked for")
    number = torch.finfo(density.dtype).bits // 8
    fitting = max(1, _BLOCK_BYTES // (_COPIES * number * guide.numbers(density)))
    most = min(_MOST, fitting, guide.size)
    if most == 1:
        return Batching(1, "there is one" if guide.size == 1 else "more do not fit 256 MB")
    if density.device.type != "cpu" or not _convolves(density):
        return Batching(most, "stacked members share the cost of every operator")
    tried = min(_TRIED, most)
    _, alone = _measured(guide, density, 1)
    fitted, together = _measured(guide, density, tried)
    told = (
        f"a step of a member took {1e3 * together:.2f} ms among {fitted}, "
        f"{1e3 * alone:.2f} ms alone"
    )
    if fitted < tried:
        most, told = fitted, f"{told}, and {tried} did not fit into memory"
    return Batching(1 if alone <= together else most, told)


def _measured(guide: Measured, density: LogDensity, members: int) -> tuple[int, float]:
    """How many of these members fit, and the seconds of a step of each."""

    def step(span: slice) -> tuple[int, float]:
        return span.stop, _seconds(guide, density, span.stop) / span.stop

    return next(Halving(members, "training", "members").run(step, members))


def _seconds(guide: Measured, density: LogDensity, members: int) -> float:
    """Shortest of some steps, the first of which also traces its graph."""
    step = guide.take_step(density, generators(range(members), density.device))
    step()
    found = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return min(found)


def _convolves(density: LogDensity) -> bool:
    """Whether the model calls a convolution."""
    with _Watch() as watch:
        example_nodes(density)
    found: bool = watch.seen
    return found


class _Watch(TorchFunctionMode):
    """Notes whether a convolution is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or func in _CONVOLUTIONS
        return func(*args, **(kwargs or {}))
