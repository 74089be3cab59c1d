"""A run in blocks of chains or members: each a task with a run directory and a seed of its own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from pyro_bnn.datasets import ROOT_VARIABLE
from pyro_bnn.errors import UserError
from pyro_bnn.infer.checkpoint import Progress
from pyro_bnn.infer.cli.rundir import FREE, RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.cli.stages import declare, sample
from pyro_bnn.infer.distributed import Block, Scheduler, blocks
from pyro_bnn.infer.distributed.meter import BlockMeter
from pyro_bnn.infer.distributed.outcome import BlockedGuide, BlockedRun
from pyro_bnn.infer.guides.failure import Failure
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import SymmetryGroup, discover
from pyro_bnn.trace.atomic import replacing
from pyro_bnn.trace.joining import join_chains

__all__ = ["Task", "run_block", "sample_in_blocks", "tasks_of"]

_RESULT = "block.json"
_JOINED = "joined"


@dataclass(frozen=True)
class Task:
    """A block, as a worker gets it: the run directory holds all else.

    `changes` are settings that a resumed run may have otherwise than the recipe in its directory.
    """

    run: str
    block: Block
    environment: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)


def sample_in_blocks(recipe: Recipe, run: RunDirectory, scheduler: Scheduler) -> BlockedRun:
    """Sample block by block where the scheduler says, then join the chains.

    Blocks, seeds and draws depend on the recipe alone. Every block streams to its own directory
    ``blocks/<number>`` inside of the run's; one whose worker was killed goes on from there.
    """
    cut = _blocks(recipe)
    folders = [_folder(run, block) for block in cut]
    tasks = tasks_of(recipe, run)
    with BlockMeter(recipe, cut, folders, [task.block.index for task in tasks]) as meter:
        for _ in scheduler.map(run_block, tasks, meter.show):
            pass
    marker = run.path / "blocks" / _JOINED
    if not marker.exists():
        join_chains(folders, run.path, recipe.run.segment_draws)
        with replacing(marker) as temporary:
            temporary.touch()
    for folder in folders:
        shutil.rmtree(folder / "segments", ignore_errors=True)
    return _together(recipe, run, cut)


def tasks_of(recipe: Recipe, run: RunDirectory) -> list[Task]:
    """List the blocks of a run that are not done."""
    # A worker need not stand in the same directory.
    known = {n: os.path.abspath(os.environ[n]) for n in (ROOT_VARIABLE,) if n in os.environ}
    left = [block for block in _blocks(recipe) if not _done(_folder(run, block))]
    tables = recipe.tables()
    changes = {f"{t}.{name}": tables[t][name] for t, name in FREE if name in tables.get(t, {})}
    return [Task(str(run.path.resolve()), block, known, changes) for block in left]


def run_block(task: Task) -> int:
    """Draw one block into its directory, from where an earlier attempt ended; return its number."""
    os.environ.update(task.environment)
    run = RunDirectory(Path(task.run))
    tables = run.recorded_recipe().tables()
    recipe = _block_recipe(Recipe.parse(tables, "the recipe of a task", task.changes), task.block)
    torch.set_num_threads(recipe.run.threads)
    density, group = _declared(
        str(run.script_file()), run.model_file.read_text(encoding="utf-8"), _declaration(recipe)
    )
    folder = _folder(run, task.block)
    folder.mkdir(parents=True, exist_ok=True)
    sampled = sample(density, group, recipe, RunDirectory(folder), quiet=True)
    guide = sampled.guide if isinstance(sampled, GuideRun) else None
    result = {
        "progress": asdict(sampled.progress),
        "start": RunDirectory(folder).recorded_start(),
        "gradient_path": density.gradient_path,
        "gradient_passes": density.gradient_passes,
        "members": None if guide is None else guide.members,
        "failures": None if guide is None else guide.failures,
        "batching": "" if guide is None else guide.batching,
    }
    with replacing(folder / _RESULT) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return task.block.index


def _blocks(recipe: Recipe) -> list[Block]:
    assert recipe.run.block is not None
    return blocks(recipe.run.chains, recipe.run.block, recipe.run.seed)


def _folder(run: RunDirectory, block: Block) -> Path:
    return run.path / "blocks" / f"{block.index:06d}"


def _done(folder: Path) -> bool:
    return (folder / _RESULT).is_file()


def _block_recipe(recipe: Recipe, block: Block) -> Recipe:
    """Return the recipe of a block: so many chains, its seed, its share of the members."""
    tables = recipe.tables()
    del tables["run"]["block"]
    tables["run"] |= {"chains": block.chains, "seed": block.seed}
    if recipe.guide is not None:
        # Measuring what is faster would let the machine choose, and roundings follow the choice.
        tables["guide"].setdefault("block", block.chains)
    if recipe.start.source == "ensemble":
        each = recipe.run.chains // recipe.start.members
        if block.chains % each:
            raise UserError(
                f"run.block = {recipe.run.block} splits the {each} chains that start from one "
                f"member: give a multiple of {each}"
            )
        tables["start"]["members"] = block.chains // each
    return Recipe.parse(tables, "the recipe of a block")


def _declaration(recipe: Recipe) -> str:
    """Return the part of a recipe that blocks of one size share, as TOML."""
    tables = recipe.tables()
    tables["run"] |= {"seed": 0}
    return Recipe.parse(tables, "the recipe of a block").to_toml()


@functools.lru_cache(maxsize=1)
def _declared(path: str, text: str, recipe: str) -> tuple[LogDensity, SymmetryGroup | None]:
    """Declare the model once for all blocks that this process takes."""
    parsed = Recipe.parse(tomllib.loads(recipe), "the recipe of a block")
    density, _ = declare(ModelScript.load(path), parsed)
    return density, discover(density) if parsed.quotient.enabled else None


def _together(recipe: Recipe, run: RunDirectory, cut: list[Block]) -> BlockedRun:
    """Sum up what the blocks reported, their chains and members renumbered."""
    total = Progress()
    gradients = chains = 0
    members: list[int] = []
    failures: list[Failure] = []
    start: dict[str, list[float]] = {}
    for block in cut:
        result = json.loads((_folder(run, block) / _RESULT).read_text(encoding="utf-8"))
        progress = Progress(**result["progress"])
        total.warmup, total.draws = progress.warmup, progress.draws
        total.divergences += progress.divergences
        total.seconds_warmup += progress.seconds_warmup
        total.seconds_sampling += progress.seconds_sampling
        gradients += progress.gradients * block.chains
        total.dead += [chains + chain for chain in progress.dead]
        chains += block.chains if result["members"] is None else len(result["members"])
        members += [block.start + member for member in result["members"] or []]
        for member, *rest in result["failures"] or []:
            failures.append(Failure(block.start + member, *rest))
        _append_start(start, result["start"])
    total.gradients = round(gradients / recipe.run.chains)
    if start:
        run.start_file.write_text(json.dumps(start), encoding="utf-8")
    batching = f"blocks of {recipe.run.block}; in the last, {result['batching']}"
    guide = BlockedGuide(members, failures, batching) if recipe.guide else None
    return BlockedRun(total, result["gradient_path"], tuple(result["gradient_passes"]), guide)


def _append_start(start: dict[str, list[float]], found: Mapping[str, list[float]]) -> None:
    """Add the members that a block's chains started from to those of the blocks before it."""
    before = len(start.get("member_loss", []))
    for name, values in found.items():
        shift = before if name in ("members", "members_not_converged") else 0
        start.setdefault(name, []).extend(value + shift for value in values)
