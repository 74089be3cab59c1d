"""A run directory: what it takes, what it leaves to others, and where its script is found."""

from __future__ import annotations

import pytest

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.recipe import Recipe

SCRIPT = """
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from neighbour_of_the_script import ROWS

from pyro_bnn.data import Data, Split


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=y)


def data():
    table = Path(__file__).with_name("table.csv").read_text().split()
    x = torch.tensor([float(number) for number in table[:ROWS]])[:, None]
    return Data(Split(x, x[:, 0]), Split(x, x[:, 0]))
"""


@pytest.fixture
def script(tmp_path):
    """Write a script that needs files beside it, and load it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "table.csv").write_text("1 2 3 4", encoding="utf-8")
    (folder / "neighbour_of_the_script.py").write_text("ROWS = 3\n", encoding="utf-8")
    (folder / "model.py").write_text(SCRIPT, encoding="utf-8")
    return ModelScript.load(folder / "model.py")


def recipe_of(**run):
    return Recipe.parse({"kernel": {"name": "hmc"}, "run": run}, "the test")


def test_the_folder_of_the_script_is_no_run_directory(script):
    before = {file: file.read_bytes() for file in script.path.parent.iterdir() if file.is_file()}
    run = RunDirectory(script.path.parent)
    with pytest.raises(UserError, match="holds the model script itself"):
        run.claim(recipe_of(), script)
    assert all(file.read_bytes() == text for file, text in before.items())
    assert not run.recipe_file.exists()


@pytest.mark.parametrize("name", ["data.json", "summary.json", "report.html"])
def test_files_of_others_are_not_replaced(script, tmp_path, name):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).write_text("somebody's", encoding="utf-8")
    with pytest.raises(UserError, match=f"has a {name}, which a run would replace"):
        run.claim(recipe_of(), script)
    assert [file.name for file in run.path.iterdir()] == [name]


def test_a_run_that_failed_leaves_the_directory_free(script, tmp_path):
    run = RunDirectory(tmp_path / "run")
    for _ in range(2):
        run.claim(recipe_of(block=1), script)
        (run.path / "blocks" / "000000").mkdir(parents=True)
        run.release()
        assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("folder", [".", "blocks/000001"])
def test_a_training_that_was_begun_is_kept(script, tmp_path, folder):
    """Members of another recipe would go on from it."""
    run = RunDirectory(tmp_path / "run")
    run.claim(recipe_of(), script)
    begun = run.path / folder / "training" / "000000-0.safetensors"
    begun.parent.mkdir(parents=True)
    begun.touch()
    run.release()
    assert begun.exists()
    assert run.recorded_recipe() == recipe_of()


def test_the_script_of_a_run_has_its_neighbours_while_it_is_as_it_was(script, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.claim(recipe_of(), script)
    assert run.script_file() == script.path
    assert len(ModelScript.load(run.script_file()).data.train.x) == 3
    script.path.write_text(f"{SCRIPT}# changed\n", encoding="utf-8")
    assert run.script_file() == run.model_file
    script.path.write_bytes(b"\xff\xfe")
    assert run.script_file() == run.model_file
    script.path.unlink()
    assert run.script_file() == run.model_file
    run.recipe_file.unlink()
    assert run.script_file() == run.model_file


def test_a_recipe_that_is_silent_on_blocks_resumes_a_run_in_blocks(script, tmp_path):
    """A scheduler chooses their size where the recipe does not."""
    run = RunDirectory(tmp_path / "run")
    run.claim(recipe_of(chains=16, block=8, threads=1), script)
    resumed = run.resumed_recipe(recipe_of(chains=16), script)
    assert (resumed.run.block, resumed.run.threads) == (8, 1)
    with pytest.raises(UserError, match=r"started with run\.block = 8, not 4"):
        run.resumed_recipe(recipe_of(chains=16, block=4), script)
