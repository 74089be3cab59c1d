"""Blocks of a run in one process: what they are, how they are joined and resumed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pyro_bnn.datasets import ROOT_VARIABLE
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.blocks import Task, run_block, sample_in_blocks, tasks_of
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.cli.stages import declare, sample
from pyro_bnn.infer.distributed import Scheduler, blocks
from pyro_bnn.infer.distributed.meter import steps_saved
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.symmetry import discover
from pyro_bnn.trace import segment_paths


def test_blocks_cover_the_chains_and_have_seeds_of_their_own():
    cut = blocks(10, 4, seed=3)
    covered = [chain for block in cut for chain in range(block.start, block.start + block.chains)]
    assert covered == list(range(10))
    assert len({block.seed for block in cut}) == 3
    assert cut[:2] == blocks(8, 4, seed=3)
    assert {b.seed for b in blocks(100, 1, seed=4)} & {
        b.seed for b in blocks(100, 1, seed=3)
    } == set()


def test_a_run_of_one_block_is_the_run_without_blocks(claim, sampled, draws, assert_same):
    recipe, run = claim("whole", run={"chains": 3, "draws": 10, "seed": 5})
    density, _ = declare(ModelScript.load(run.model_file), recipe)
    whole = sample(density, discover(density), recipe, run)
    settings = {"chains": 3, "draws": 10, "seed": 5, "block": 3}
    outcome, found = sampled(Scheduler("none"), "one", run=settings)
    assert_same(found, draws(run.path))
    assert outcome.progress.gradients == whole.progress.gradients
    assert outcome.guide is None


def test_blocks_lie_side_by_side_whatever_lies_around_them(sampled, tmp_path):
    outcome, found = sampled(
        Scheduler("none"), "long", run={"chains": 5, "draws": 16, "seed": 1, "block": 2}
    )
    _, short = sampled(
        Scheduler("none"), "short", run={"chains": 4, "draws": 16, "seed": 1, "block": 2}
    )
    for key, values in short.items():
        assert found[key].shape[:2] == (5, 16)
        np.testing.assert_array_equal(found[key][:4], values)
    assert outcome.progress.draws == 16
    joined = segment_paths(tmp_path / "long")
    assert len(joined) == 3
    assert all(b"\nsha256 " in path.read_bytes()[-80:] for path in joined)
    assert not list((tmp_path / "long" / "blocks").glob("*/segments"))


def test_an_interrupted_run_goes_on_block_by_block(claim, sampled, draws, assert_same):
    settings = {"chains": 4, "draws": 12, "seed": 2, "block": 2}
    _, whole = sampled(Scheduler("none"), "whole", run=settings)
    recipe, run = claim("cut", run=settings)

    class Interrupted(Scheduler):
        def map(self, function, tasks, watch=None):
            function(list(tasks)[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_in_blocks(recipe, run, Interrupted("none"))
    run.release()
    assert run.recipe_file.exists()
    begun = (run.path / "blocks" / "000001" / "block.json").stat().st_mtime_ns
    for _ in range(2):
        sample_in_blocks(recipe, run, Scheduler("none"))
        assert_same(draws(run.path), whole)
    assert (run.path / "blocks" / "000001" / "block.json").stat().st_mtime_ns == begun
    assert steps_saved(run.path / "blocks" / "000000", 2) == 2 * (20 + 12)


def test_members_of_a_guide_are_renumbered(sampled, tmp_path):
    guide = {"name": "map", "epochs": 3}
    settings = {"chains": 5, "draws": 1, "seed": 1, "block": 2}
    outcome, found = sampled(Scheduler("none"), "guide", run=settings, guide=guide)
    assert outcome.guide.members == [0, 1, 2, 3, 4]
    weights = found["posterior", "0.weight"]
    assert weights.shape == (5, 1, 3, 2)
    assert len(np.unique(weights.reshape(5, -1), axis=0)) == 5
    assert steps_saved(tmp_path / "guide" / "blocks" / "000001", 2) == 2


def test_a_resumed_run_trains_fewer_members_of_a_block_at_once(claim):
    recipe, run = claim(
        "fewer", run={"chains": 4, "draws": 1, "block": 4}, guide={"name": "map", "epochs": 2}
    )
    fewer = Recipe.parse(recipe.tables(), "the test", {"guide.block": 2})
    outcome = sample_in_blocks(fewer, run, Scheduler("none"))
    assert outcome.guide.batching == "blocks of 4; in the last, 2 members at once: as asked for"


def test_members_that_chains_start_from_are_shared_out(sampled, claim, tmp_path):
    start = {"from": "ensemble", "members": 4, "epochs": 2, "held_out": 0.0}
    settings = {"chains": 8, "draws": 2, "block": 4}
    sampled(Scheduler("none"), "mile", run=settings, start=start)
    recorded = json.loads((tmp_path / "mile" / "start.json").read_text())
    assert recorded["members"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(recorded["member_loss"]) == 4
    with pytest.raises(UserError, match=r"run.block = 3 splits the 2 chains .* multiple of 2"):
        sampled(Scheduler("none"), "uneven", run=settings | {"block": 3}, start=start)


def test_workers_find_the_script_beside_its_files_and_the_data(claim, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, "data")
    (tmp_path / "notes.txt").touch()
    before = "from pathlib import Path\nPath(__file__).with_name('notes.txt').read_text()\n"
    recipe, run = claim("one", run={"chains": 2, "draws": 2, "block": 1}, before=before)
    task = tasks_of(recipe, run)[0]
    assert task.environment == {ROOT_VARIABLE: str(Path.cwd() / "data")}
    assert run_block(task) == 0


def test_a_task_can_be_pickled_and_names_its_block(claim):
    _, run = claim("one", run={"chains": 2, "draws": 2, "block": 1})
    task = pickle.loads(pickle.dumps(Task(str(run.path), blocks(2, 1, 0)[1])))
    assert run_block(task) == 1
    assert (run.path / "blocks" / "000001" / "block.json").is_file()
