"""The model scripts whose data are downloaded: loaded from miniatures, one gradient each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyro_bnn import LogDensity
from pyro_bnn.infer.cli.script import ModelScript

MODELS = Path(__file__).parents[2] / "models"

# Weights, shape of an input, splits from elsewhere.
CASES = {
    "optunet_mnist": (392, (1, 28, 28), ["FashionMNIST"]),
    "lenet5_mnist": (61_706, (1, 28, 28), ["FashionMNIST"]),
    "resnet20_frn_cifar10": (272_474, (3, 32, 32), ["SVHN"]),
    "vit_cifar10": (142_026, (3, 32, 32), ["SVHN"]),
    "uci_mlp": (402, (6,), []),
    "resnet18_cifar10": (11_173_962, (3, 32, 32), ["SVHN"]),
    "resnet18_cifar100": (11_220_132, (3, 32, 32), ["SVHN"]),
    "resnet18_tiny_imagenet": (11_271_432, (3, 64, 64), []),
}


def test_every_script_that_reads_data_is_here():
    reading = [
        path.stem
        for path in MODELS.glob("*.py")
        if "pyro_bnn.datasets" in path.read_text(encoding="utf-8")
    ]
    assert sorted(reading) == sorted(CASES)


SLOW = [name for name in CASES if name.startswith(("resnet", "vit"))]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES],
)
def test_loads_and_has_a_gradient(root, name):
    weights, shape, elsewhere = CASES[name]
    script = ModelScript.load(MODELS / f"{name}.py")
    data = script.data
    assert data.train.x.shape[1:] == shape
    assert list(data.ood) == elsewhere
    density = LogDensity(script.model, data.train.x[:2], data.train.y[:2])
    assert density.dim == weights
    generator = torch.Generator().manual_seed(0)
    # Small weights, so that no activation of eighteen layers overflows.
    position = 0.05 * torch.randn(1, density.dim, generator=generator)
    value, gradient = density.value_and_grad(position)
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())
    likelihood = density.log_likelihood(position)
    step = position - 1e-3 * gradient / gradient.norm()
    assert float(density.potential(step)) < float(density.potential(position))
    assert float(likelihood) < 0


def test_the_split_of_a_table_is_chosen_in_the_environment(root, monkeypatch):
    monkeypatch.setenv("PYRO_BNN_SPLIT", "1")
    assert ModelScript.load(MODELS / "uci_mlp.py").data.name == "UCI yacht, 1"
