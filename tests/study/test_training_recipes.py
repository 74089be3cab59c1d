"""The training recipes of the study: they are read, and one of them trains from a miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_bnn.infer.cli.app import alone
from pyro_bnn.infer.recipe import Recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "inference" / "study").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_is_read_and_has_its_model(path):
    recipe = Recipe.read(path)
    scripts = {script.stem for script in (ROOT / "models").glob("*.py")}
    # A second recipe of a script adds its method to the name.
    assert {path.stem, path.stem.rpartition("_")[0]} & scripts
    if recipe.guide is not None:
        assert recipe.guide.start == "layers"


def test_the_rate_of_cifar100_falls_at_epochs_25_and_50():
    guide = Recipe.read(ROOT / "inference" / "study" / "resnet18_cifar100.toml").guide
    training = guide.options()["training"]
    rates = [training.rate(epoch / guide.epochs) for epoch in (0, 24.9, 25, 49.9, 50, 74)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (training.nesterov, training.batch_size) == (True, 128)


@pytest.mark.slow
def test_the_command_line_trains_from_the_named_folder(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYRO_BNN_DATA", str(tmp_path / "nowhere"))
    words = [str(ROOT / "models" / "optunet_mnist.py"), "--data", str(root), "--chains", "2"]
    words += ["--recipe", str(ROOT / "inference" / "study" / "optunet_mnist.toml")]
    words += ["--set", "guide.epochs=2", "--out", str(tmp_path / "run"), "--no-report"]
    done = CliRunner().invoke(alone, words)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["chains"], summary["test.accuracy"] <= 1) == (2, True)
    assert "12 rows of MNIST" in done.output
