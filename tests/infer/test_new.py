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
    assert start_project(folder, None, None).task == "regression"
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
    assert start_project(tmp_path / "a", table, "grade").task == "classification"
    density, script = density_of(tmp_path / "a")
    rows = len(script.data.train.x) + len(script.data.test.x)
    assert rows == 7  # without the gap
    assert script.data.train.x.shape[1] == 4  # the size, and three colours
    assert density.sites["2.weight"].shape[0] == 3
    assert start_project(tmp_path / "b", table, "colour").task == "classification"
    assert start_project(tmp_path / "c", table, "size").task == "regression"
    assert density_of(tmp_path / "c")[1].data.train.y.dtype == torch.float32
    # The script does not depend on where it lies: a run keeps a copy of it.
    moved = tmp_path / "elsewhere.py"
    (tmp_path / "c" / "model.py").rename(moved)
    assert ModelScript.load(moved).data.name == "own table.csv"


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


def csv_of(tmp_path, text):
    path = tmp_path / "some.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_with_semicolons_and_an_empty_column(tmp_path):
    rows = "\n".join(f"{k};{k % 3};;{2.5 * k}" for k in range(12))
    made = start_project(tmp_path / "a", csv_of(tmp_path, f"x;z;spare;y\n{rows}\n"), None)
    assert (made.task, made.table) == ("regression", "12 rows, 2 features, target 'y'")
    assert made.remarks == [
        "scores and predictions are in standard deviations of 'y': 9.0139",
        "empty columns are left out: spare",
    ]
    assert density_of(tmp_path / "a")[1].data.train.x.shape == (10, 2)


def test_names_and_gaps_are_remarked_on(tmp_path):
    rows = "\n".join(f"name{k},{k if k else ''},{k % 2}" for k in range(60))
    made = start_project(tmp_path / "a", csv_of(tmp_path, f"who,x,y\n{rows}\n"), None)
    assert made.table == "59 rows, 1 feature, 2 classes of 'y'"
    assert made.remarks[0].startswith("column 'who' has 60 distinct words, names or dates")
    assert made.remarks[1] == "rows with gaps that are left out: 1 of 60 (column 'x' has 1)"
    assert density_of(tmp_path / "a")[1].data.train.x.shape == (47, 1)


def test_row_numbers_are_no_feature(tmp_path):
    """They would tell the target of a table that is sorted by it."""
    frame = pd.DataFrame({"x": range(20), "y": [0] * 10 + [1] * 10})
    frame["x"] = frame["x"] % 7
    frame.to_csv(tmp_path / "some.csv")
    made = start_project(tmp_path / "a", tmp_path / "some.csv", None)
    assert made.table == "20 rows, 1 feature, 2 classes of 'y'"
    assert made.remarks == [
        "column 1, without a name, numbers the rows and is left out: DROP in model.py"
    ]
    assert "DROP = ['Unnamed: 0']" in (tmp_path / "a" / "model.py").read_text(encoding="utf-8")
    only = csv_of(tmp_path, "\n".join(["who,y", *(f"name{k},{k % 2}" for k in range(60))]) + "\n")
    with pytest.raises(UserError, match="no column of features beside 'y'"):
        start_project(tmp_path / "b", only, None)


def test_many_words_that_recur_stay_and_are_remarked_on(tmp_path):
    rows = "\n".join(f"place{k % 60},{k},{k / 7}" for k in range(300))
    made = start_project(tmp_path / "a", csv_of(tmp_path, f"where,x,y\n{rows}\n"), None)
    assert made.table == "300 rows, 61 features, target 'y'"
    assert made.remarks[0] == (
        "column 'where' has 60 distinct words, each a feature: to leave it out, add it to DROP in "
        "model.py"
    )


def test_whole_numbers_are_what_one_says_they_are(tmp_path):
    table = csv_of(tmp_path, "x,y\n" + "".join(f"{k * k},{k % 6}\n" for k in range(60)))
    found = start_project(tmp_path / "a", table, None)
    assert found.task == "classification"
    assert found.remarks == [
        "the 6 whole numbers of 'y' are taken for classes; if they are a quantity, start anew "
        "with --task regression"
    ]
    assert start_project(tmp_path / "b", table, None, "regression").task == "regression"
    assert density_of(tmp_path / "b")[1].data.train.y.dtype == torch.float32
    with pytest.raises(UserError, match="--task is classification or regression, not 'ranking'"):
        start_project(tmp_path / "c", table, None, "ranking")
    few = csv_of(tmp_path, "x,y\n" + "".join(f"{k * k},{k % 12}\n" for k in range(20)))
    assert start_project(tmp_path / "c", few, None).task == "regression"
    with pytest.raises(UserError, match="60 distinct values in 60 rows: too many to be classes"):
        start_project(
            tmp_path / "d",
            csv_of(tmp_path, "x,y\n" + "".join(f"{k},n{k}\n" for k in range(60))),
            None,
        )
    words = csv_of(tmp_path, "x,y\n" + "1,a\n2,b\n" * 9)
    with pytest.raises(UserError, match=r"column 'y' of .* holds words, of which there is no regr"):
        start_project(tmp_path / "e", words, None, "regression")


def test_time_stamps_keep_their_seconds(tmp_path):
    table = csv_of(tmp_path, "t,y\n" + "".join(f"{1_700_000_000 + k},{k}.5\n" for k in range(60)))
    start_project(tmp_path / "a", table, None)
    train = density_of(tmp_path / "a")[1].data.train
    assert torch.corrcoef(torch.stack([train.x[:, 0], train.y]))[0, 1] > 0.999


def test_rare_and_common_classes_are_remarked_on(tmp_path):
    table = csv_of(tmp_path, "x,y\n" + "".join(f"{k},{'b' if k < 38 else k}\n" for k in range(40)))
    assert start_project(tmp_path / "a", table, None).remarks == [
        "classes of fewer than 5 rows, which one of the splits may lack: '38', '39'",
        "95 % of the rows are 'b': an accuracy of as much is reached by always naming it",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x,z,y\n1,,2\n2,,3\n3,1,4\n4,,1\n5,,2\n", "1 of 5 rows without a gap: column 'z' has 4;"),
        ("x,y\n", "0 of 0 rows without a gap; fill"),
        ("x,y\n" + "1,\n" * 9, "column 'y' of .* is empty"),
        ("x,y\n" + "1,2\n" * 9, "column 'y' of .* the same value"),
        ("x,y\n" + "1,2\n2,3\n" * 9 + "inf,3\n", "column 'x' of .* has infinite values"),
    ],
    ids=["gaps", "no-rows", "empty", "one-value", "infinite"],
)
def test_tables_with_nothing_to_learn_from(tmp_path, text, part):
    with pytest.raises(UserError, match=part):
        start_project(tmp_path / "a", csv_of(tmp_path, text), None)
    assert not (tmp_path / "a").exists()
