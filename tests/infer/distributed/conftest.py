"""A small run in blocks, wherever its blocks are computed."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bnn.infer.cli.blocks import sample_in_blocks
from pyro_bnn.infer.cli.rundir import RunDirectory
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.trace import open_trace

SCRIPT = """
import torch
from torch import nn
from pyro_bnn import Data, Split
from pyro_bnn.nn import Normal, gaussian, lift

net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
bnn = lift(net, prior=Normal(scale="fan_in"))


def model(x, y=None):
    return gaussian(bnn(x), y)


def data():
    x = torch.linspace(-2, 2, 60).reshape(30, 2)
    y = torch.sin(x[:, 0]) + 0.1 * torch.cos(40 * x[:, 1])
    return Data(Split(x[:20], y[:20]), Split(x[20:], y[20:]), name="a sine")
"""

HMC = {"name": "hmc", "num_steps": 3}


@pytest.fixture
def claim(tmp_path):
    """Return a function that begins a run of some tables of a recipe in a new directory."""

    def begin(name, *, run, before="", **tables):
        script = tmp_path / "tiny.py"
        script.write_text(before + SCRIPT, encoding="utf-8")
        defaults = {"threads": 1, "warmup": 20, "segment_draws": 7}
        if "guide" not in tables:
            tables = {"kernel": HMC, **tables}
        recipe = Recipe.parse({**tables, "run": defaults | run}, "the test")
        directory = RunDirectory(tmp_path / name)
        directory.claim(recipe, ModelScript.load(script))
        return recipe, directory

    return begin


@pytest.fixture
def sampled(claim):
    """Return a function that samples a run in blocks; its outcome and its draws."""

    def sample(scheduler, name, **tables):
        recipe, directory = claim(name, **tables)
        with scheduler:
            outcome = sample_in_blocks(recipe, directory, scheduler)
        return outcome, draws_of(directory.path)

    return sample


@pytest.fixture(scope="session")
def draws():
    """Return a function that reads all draws of a run."""
    return draws_of


def draws_of(run):
    with open_trace(run) as tree:
        return {
            (group, str(name)): values.to_numpy()
            for group in ("posterior", "sample_stats")
            for name, values in tree[group].data_vars.items()
        }


@pytest.fixture(scope="session")
def assert_same():
    """Return a check that two sets of draws are equal, bit for bit."""

    def check(found, expected):
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=str(key), strict=True)

    return check
