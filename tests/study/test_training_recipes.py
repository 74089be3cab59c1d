"""The training recipes of the study: they are read, and one of them trains from a miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import load_file
from torchvision.models.resnet import BasicBlock, ResNet
from typer.testing import CliRunner

from pyro_bnn.datasets import cifar10
from pyro_bnn.infer.cli.app import alone
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.nn.architectures import resnet18
from pyro_bnn.trace import export_checkpoints, open_trace

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


@pytest.mark.slow
def test_resnet18_is_trained_with_the_statistics_of_its_batches(root, tmp_path, monkeypatch):
    """The whole way, with one block a stage instead of two: tracing them is what takes long."""

    def halved(num_classes):
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)

    monkeypatch.setattr(torchvision.models, "resnet18", halved)
    words = [str(ROOT / "models" / "resnet18_cifar10.py"), "--data", str(root), "--chains", "1"]
    words += ["--recipe", str(ROOT / "inference" / "study" / "resnet18_cifar10.toml")]
    words += ["--set", "guide.epochs=1", "--set", "guide.batch_size=5", "--no-report"]
    # As with many rows: none of the stages after the training sees all of them at once.
    words += ["--set", "run.chunk_rows=4"]
    done = CliRunner().invoke(alone, [*words, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    with open_trace(tmp_path / "run") as trace:
        predicted = torch.from_numpy(trace["predictions"]["mean"].to_numpy()[0, 0])
        assert float(trace["symmetry"].attrs["function_error"]) < 1e-4
        single = torch.from_numpy(trace["point_estimate"]["mean"].to_numpy())
        assert "layer4.0.bn2.running_var" in trace["canonical_posterior"]
        export_checkpoints(trace, tmp_path / "exported")
    net = resnet18(10)
    (file,) = (tmp_path / "exported").rglob("*.safetensors")
    missing, unexpected = net.load_state_dict(load_file(file), strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    assert float(net.bn1.running_mean.abs().max()) > 0.01
    with torch.no_grad():
        expected = net(cifar10(root).test.x).softmax(-1)
    torch.testing.assert_close(predicted.to(expected), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(single.to(expected), expected, rtol=1e-3, atol=1e-4)
