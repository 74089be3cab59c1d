"""A run is resumed with the data that it was started with."""

from __future__ import annotations

import pytest
import torch

from pyro_bnn import Data, Split
from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.fingerprint import changed, fingerprint
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.recipe import Recipe

SCRIPT = """
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from pyro_bnn.data import Data, Split


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=y)


def data():
    table = (Path(__file__).parent / "table.csv").read_text().split()
    x = torch.tensor([float(number) for number in table])[:, None]
    return Data(Split(x, x[:, 0]), Split(x, x[:, 0]))
"""
RECIPE = {"kernel": {"name": "hmc"}, "run": {"chains": 1, "threads": 1}}


@pytest.fixture
def begun(tmp_path):
    """Return a run that has been claimed, and a function that resumes it with a table."""
    (tmp_path / "model.py").write_text(SCRIPT, encoding="utf-8")
    recipe = Recipe.parse(RECIPE, "the test")
    run = RunDirectory(tmp_path / "run")

    def load(table):
        (tmp_path / "table.csv").write_text(table, encoding="utf-8")
        return ModelScript.load(tmp_path / "model.py")

    run.claim(recipe, load("1 2 3"))
    return run, lambda table: run.resumed_recipe(recipe, load(table))


def test_the_same_data_are_resumed(begun):
    run, resume = begun
    assert resume("1 2 3").run.chains == 1
    run.data_file.unlink()  # as in runs that older versions have started
    assert resume("1 2 4").run.chains == 1


@pytest.mark.parametrize("table", ["1 2 4", "1 2", "2 1 3", "1 2 3 3"])
def test_other_data_are_refused(begun, table):
    run, resume = begun
    with pytest.raises(UserError, match=r"data of model script .*model\.py have changed.*train\.x"):
        resume(table)
    assert run.data_file.is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"train.x": {"shape": 3}}'])
def test_a_damaged_note_is_named(begun, text):
    run, resume = begun
    run.data_file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        resume("1 2 3")


def split(x):
    return Data(Split(x, torch.zeros(len(x))), Split(x[:5], torch.zeros(5)))


def test_rounding_is_forgiven_and_a_single_row_is_not():
    x = torch.randn(5000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = fingerprint(split(x))
    rounded = x * (1 + 1e-7 * torch.sign(x))
    assert changed(before, fingerprint(split(rounded))) is None
    assert changed(before, fingerprint(split(x.double()))) is None
    other = x.clone()
    other[4321] = x[17]
    assert changed(before, fingerprint(split(other))) == "train.x"
    assert changed(before, fingerprint(split(x[torch.randperm(5000)]))) == "train.x"
    assert changed(before, fingerprint(split(x.mT.contiguous()))) == "train.x"
