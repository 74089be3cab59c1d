"""How blocks scale over workers: measured on 1 and 2, simulated for 1,000 tasks on up to 1,000.

Run: python benchmarks/scaling.py, on two idle cores; ``--quick`` has shorter blocks.

Blocks of the diabetes network are sampled by a local Dask cluster of 1 and of 2 workers, after each
worker has computed one of the same run, for which it imports and traces everything; every task
notes how long it took. All blocks cost the same number of gradients. What Dask adds to a task is
the wall time of many empty tasks over their number. Then 1,000 tasks of the recorded lengths are
dealt out to more workers by simulation: a worker that becomes free asks the scheduler, which serves
one worker at a time and takes the measured overhead for it.
"""

from __future__ import annotations

import argparse
import heapq
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pyro_bnn.infer.cli.blocks import Task, run_block, tasks_of
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.distributed import Scheduler
from pyro_bnn.infer.recipe import Recipe

TASKS = 1_000
LEAPFROGS = 20  # of a draw: by its length, a trajectory can have hundreds while step sizes adapt


def timed(task: Task) -> float:
    """Run a block and return its seconds."""
    started = time.perf_counter()
    run_block(task)
    return time.perf_counter() - started


def begun(folder: Path, blocks: int, draws: int) -> list[Task]:
    """Begin a run of 8 chains a block and list its tasks."""
    script = ModelScript.load("models/diabetes_mlp.py")
    settings = {"chains": 8 * blocks, "block": 8, "draws": draws, "warmup": draws, "seed": 0}
    tables = {
        "kernel": {"name": "hmc", "num_steps": LEAPFROGS},
        "run": settings | {"threads": 1, "segment_draws": draws},
    }
    recipe = Recipe.parse(tables, "the benchmark")
    run = RunDirectory(folder)
    run.claim(recipe, script)
    return tasks_of(recipe, run)


def measured(workers: int, blocks: int, draws: int, empty: int) -> tuple[float, list[float], float]:
    """Wall seconds of all blocks, seconds of each, and seconds of an empty task."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Scheduler("local", workers=workers, dashboard=False) as scheduler,
    ):
        # Of the same run, whose traced model a worker keeps; twice as many as workers, so that each
        # has had one.
        first = 2 * workers
        tasks = begun(Path(folder), first + blocks, draws)
        started = time.perf_counter()
        warming = list(scheduler.map(timed, tasks[:first]))
        print(
            f"first blocks: {time.perf_counter() - started:.1f} s, of which the longest took "
            f"{max(warming):.1f} s",
            flush=True,
        )
        started = time.perf_counter()
        lengths = list(scheduler.map(timed, tasks[first:]))
        wall = time.perf_counter() - started
        started = time.perf_counter()
        list(scheduler.map(abs, range(empty)))
        return wall, lengths, (time.perf_counter() - started) / empty


def simulated(lengths: Sequence[float], workers: int, overhead: float) -> float:
    """Makespan of tasks that are handed out one at a time, in order, to whoever is free."""
    free = [0.0] * workers
    scheduler = 0.0
    for length in lengths:
        scheduler = max(scheduler, heapq.heappop(free)) + overhead
        heapq.heappush(free, scheduler + length)
    return max(free)


def main() -> None:
    """Measure, then simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    blocks, draws, empty = (4, 10, 100) if given.quick else (16, 50, 1_000)
    walls = {}
    for workers in (1, 2):
        wall, lengths, overhead = measured(workers, blocks, draws, empty)
        walls[workers] = wall
        mean = sum(lengths) / blocks
        print(
            f"{workers} worker{'s' if workers > 1 else ''}: {blocks} blocks in {wall:.2f} s, "
            f"{mean:.2f} s each ({min(lengths):.2f} to {max(lengths):.2f}); an empty task "
            f"{1e3 * overhead:.2f} ms, {100 * overhead / mean:.2f} % of a block",
            flush=True,
        )
    print(f"2 workers are {walls[1] / walls[2]:.2f} times as fast as 1")
    drawn = random.Random(0).choices(lengths, k=TASKS)
    print(f"simulated, {TASKS:,} tasks of these lengths and {1e3 * overhead:.2f} ms overhead each:")
    for workers in (1, 10, 100, 1_000):
        span = simulated(drawn, workers, overhead)
        bare = simulated(drawn, workers, 0.0)
        print(
            f"  {workers:>5,} workers {span:9.1f} s, efficiency "
            f"{100 * sum(drawn) / workers / span:5.1f} % ({100 * (span - bare) / span:.1f} % of "
            "the time is the scheduler's)"
        )


if __name__ == "__main__":
    main()
