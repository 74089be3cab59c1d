"""`pyro-bnn new`: a folder to start from, which runs as it is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer.cli.new import start_project
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.recipe import Recipe


def density_of(folder: Path) -> tuple[LogDensity, ModelScript]:
    script = ModelScript.load(folder / "model.py")
    train = script.data.train
    return LogDensity(script.model, train.x, train.y), script


def test_the_folder_runs_as_it_is(tmp_path):
    folder = tmp_path / "deep" / "project"
    assert start_project(folder, None, None) == "regression"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "data.csv",
        "model.py",
        "recipe.toml",
    ]
    recipe = Recipe.read(folder / "recipe.toml")
    assert recipe.run.chains == 16
    density, script = density_of(folder)
    assert script.data.train.x.shape == (354, 10)
    start = density.initial_position(2, torch.Generator().manual_seed(0))
    assert density.value_and_grad(start)[1].isfinite().all()


@pytest.fixture
def table(tmp_path):
    """Return a table with words, numbers and a gap in it."""
    frame = pd.DataFrame(
        {
            "size": [1.5, 2.0, 0.5, 3.5, 2.5, 1.0, None, 2.2],
            "colour": ["red", "blue", "red", "green", "blue", "red", "red", "green"],
            "grade": [1, 2, 1, 3, 2, 1, 1, 3],
        }
    )
    path = tmp_path / "own table.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_table_of_ones_own(tmp_path, table):
    assert start_project(tmp_path / "a", table, "grade") == "classification"
    density, script = density_of(tmp_path / "a")
    rows = len(script.data.train.x) + len(script.data.test.x)
    assert rows == 7  # without the gap
    assert script.data.train.x.shape[1] == 4  # the size, and three colours
    assert density.sites["2.weight"].shape[0] == 3
    assert start_project(tmp_path / "b", table, "colour") == "classification"
    assert start_project(tmp_path / "c", table, "size") == "regression"
    assert density_of(tmp_path / "c")[1].data.train.y.dtype == torch.float32
    # The script does not depend on where it lies: a run keeps a copy of it.
    moved = tmp_path / "elsewhere.py"
    (tmp_path / "c" / "model.py").rename(moved)
    assert ModelScript.load(moved).data.name == str(table)


def test_nothing_is_overwritten_and_what_is_wrong_is_named(tmp_path, table):
    with pytest.raises(UserError, match=r"has no column 'price'; it has size, colour, grade"):
        start_project(tmp_path / "a", table, "price")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match=r"none\.csv cannot be read as CSV: No such file"):
        start_project(tmp_path / "a", tmp_path / "none.csv", None)
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(UserError, match=r"empty\.csv cannot be read as CSV: No columns"):
        start_project(tmp_path / "a", empty, None)
    empty.write_text("only\n1\n2\n", encoding="utf-8")
    with pytest.raises(UserError, match="has one column"):
        start_project(tmp_path / "a", empty, None)
    start_project(tmp_path / "a", table, None)
    before = (tmp_path / "a" / "model.py").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"already has a model\.py"):
        start_project(tmp_path / "a", None, None)
    assert (tmp_path / "a" / "model.py").read_text(encoding="utf-8") == before
