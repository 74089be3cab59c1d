"""What the study costs at its own size, from the costs of single tasks measured here.

Run: python benchmarks/study_plan.py; ``--quick`` measures a network of an eighth of the width.

Measured, in seconds of one core: a training step of ResNet-18 (an image of 32 x 32), appending a
member to a collection and verifying it, its quotient (min-mass and sort), and the distances of one
pair of members. How many images a GPU trains in a second is not measured here: it is given, and
printed as such.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pyro_bnn.diagnostics.quality import Distances
from pyro_bnn.nn.architectures import resnet18
from pyro_bnn.symmetry import Quotient, discover
from pyro_bnn.trace import Collection, CollectionWriter

CHECKPOINTS = 22_536
GPUS = 100
IMAGES, EPOCHS = 50_000, 75
REFERENCE = 1_000
TEST_IMAGES, CLASSES = 10_000, 10


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of one core that a piece of work takes."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def gradient(net: nn.Module, images: int) -> float:
    """Seconds of forward, loss and backward for one image."""
    x, y = torch.randn(images, 3, 32, 32), torch.zeros(images, dtype=torch.int64)

    def step() -> None:
        nn.functional.cross_entropy(net(x), y).backward()

    step()
    return cpu_seconds(step) / images


def storage(params: dict[str, Tensor]) -> tuple[float, float, int]:
    """Seconds to append and to verify a member, and the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        out = CollectionWriter(folder)
        append = cpu_seconds(lambda: out.append(params), 3)
        verify = cpu_seconds(lambda: Collection.open(folder)) / 3
        size = sum(path.stat().st_size for path in Path(folder).glob("members/*")) // 3
    return append, verify, size


def quick_net() -> nn.Module:
    """Build a small stand-in with the same kinds of layers."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
    ).eval()  # fmt: skip


def main() -> None:
    """Measure single tasks and multiply."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=8, help="of the measured step")
    parser.add_argument(
        "--gpu-images", type=float, default=5_000.0, help="images a GPU trains in a second: given"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    net = quick_net() if given.quick else resnet18(CLASSES)
    state = {name: t.detach() for name, t in net.state_dict().items()}
    params = {name: t for name, t in state.items() if t.is_floating_point()}
    weights = sum(p.numel() for p in params.values())
    image = gradient(net, given.images)
    append, verify, size = storage(params)
    group = discover(net, torch.zeros(1, 3, 32, 32))
    one = {name: value[None] for name, value in params.items() if name in group.shapes}
    divide = cpu_seconds(lambda: Quotient(group).canonicalize(one))
    flat = torch.randn(16, 100_000, dtype=torch.float64)
    pair = cpu_seconds(lambda: Distances.of(flat[:8], flat[8:])) / (16 * 16 * 100_000)

    training = CHECKPOINTS * IMAGES * EPOCHS
    hour = 3600.0
    gpu_hours = training / given.gpu_images / hour
    pairs = (2 * REFERENCE) ** 2 * weights * pair / hour
    disk = CHECKPOINTS * size
    print(f"measured, one core: {weights:,} weights and statistics")
    print(f"  training step       {1e3 * image:12.2f} ms an image")
    print(f"  append a member     {append:12.3f} s, {size / 1e6:.1f} MB")
    print(f"  verify a member     {verify:12.3f} s")
    print(f"  quotient of a member{divide:12.2f} s")
    print(f"  a pair of members   {weights * pair:12.4f} s")
    print(f"given: a GPU trains {given.gpu_images:,.0f} images a second")
    print(f"follows, {CHECKPOINTS:,} checkpoints of {EPOCHS} epochs on {GPUS} GPUs:")
    print(f"  tasks               {CHECKPOINTS:,} of one member, {IMAGES * EPOCHS:,} images each")
    print(f"  a task              {IMAGES * EPOCHS / given.gpu_images / 60:,.1f} min on a GPU")
    print(f"  training            {gpu_hours:,.0f} GPU hours, {gpu_hours / GPUS / 24:,.1f} days")
    print(f"  or, by the measured step, {training * image / hour:,.0f} core hours without a GPU")
    print(f"  storage             {disk / 1e12:.2f} TB, twice that with the canonical members")
    print(
        f"  network             {disk / (gpu_hours / GPUS * hour) / 1e6:.2f} MB/s written by all "
        "workers together while training"
    )
    print(f"  verification        {CHECKPOINTS * verify / hour:,.1f} core hours")
    print(f"  quotient            {CHECKPOINTS * divide / hour:,.0f} core hours")
    print(f"  MMD of {REFERENCE:,} and {REFERENCE:,} {pairs:,.1f} core hours for the distances")


if __name__ == "__main__":
    main()
