"""Drawing weight vectors from a fitted guide and predicting with them, against Pyro's `Predictive`.

Run: python benchmarks/guide_sampling.py [--draws S] [--rounds R]

Every guide is fitted briefly on the digits network (2,410 weights); how well does not matter here.
Ours draws all weight vectors at once and predicts by one batched pass; `Predictive(model, guide=
guide)` calls the same guide and the model once a draw. One thread; sides take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pyro.infer import Predictive

from pyro_bnn import LogDensity
from pyro_bnn.allocator import keep_freed_memory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.guides import (
    SWAG,
    Dropout,
    Guide,
    Laplace,
    LowRank,
    MeanField,
    PointEstimate,
    Training,
)
from pyro_bnn.infer.predict import predict

MODELS = Path(__file__).parent.parent / "models"


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print one line a guide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    script = ModelScript.load(MODELS / "digits_mlp.py")
    train, test = script.data.train, script.data.test
    density = LogDensity(script.model, train.x, train.y)
    brief = Training(epochs=5)
    guides: list[Guide] = [
        PointEstimate(density, brief),
        SWAG(density, brief, collect_epochs=10, rank=10),
        MeanField(density, brief),
        LowRank(density, brief),
        Laplace(density, brief),
        Dropout(density, brief),
    ]
    print(f"{arguments.draws} draws of {density.dim:,} weights, {len(test.x)} test inputs")
    for guide in guides:
        guide.fit(seed=0)
        generator = torch.Generator().manual_seed(0)

        def ours(guide: Guide = guide, generator: torch.Generator = generator) -> None:
            values = guide.sample_posterior(arguments.draws, generator)
            joined = {name: value.flatten(0, 1) for name, value in values.items()}
            predict(density, joined, test.x, test.y)

        def pyros(guide: Guide = guide) -> None:
            with torch.no_grad():
                Predictive(script.model, guide=guide, num_samples=arguments.draws)(test.x)

        ours()
        found, theirs = [], []
        for _ in range(arguments.rounds):
            found.append(seconds(ours))
            theirs.append(seconds(pyros))
        us, them = statistics.median(found), statistics.median(theirs)
        print(
            f"{type(guide).__name__:14} ours {us:7.3f} s  Predictive {them:7.3f} s  "
            f"ratio {them / us:5.1f}"
        )


if __name__ == "__main__":
    main()
