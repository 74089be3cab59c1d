"""The model scripts that ship: plain Pyro programs, and a few draws of each."""

from __future__ import annotations

from pathlib import Path

import pyro
import pyro.infer
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_bnn import LogDensity
from pyro_bnn.infer import HMC, MCMC
from pyro_bnn.infer.cli.script import ModelScript
from pyro_bnn.infer.predict import likelihood_kind

ALL = sorted((Path(__file__).parents[2] / "models").glob("*.py"))
# Those that bring their data; tests/study/test_image_models.py has the others.
SCRIPTS = [path for path in ALL if "pyro_bnn.datasets" not in path.read_text(encoding="utf-8")]
EXPECTED = {
    "digits_mlp": (2410, 1437, 360, "categorical"),
    "diabetes_mlp": (466, 354, 88, "continuous"),
    "breast_cancer_mlp": (513, 455, 114, "bernoulli"),
    "two_moons_by_hand": (151, 400, 100, "bernoulli"),
    "toy_two_blobs": (9, 400, 400, "bernoulli"),
}


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def test_the_scripts_of_the_issue_are_here():
    assert set(EXPECTED) <= {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_plain_pyro_runs_it(path):
    script = ModelScript.load(path)
    x, y = script.data.train.x, script.data.train.y
    unconditioned = poutine.trace(script.model).get_trace(x)
    assert unconditioned.nodes["y"]["value"].shape == y.shape
    guide = AutoNormal(script.model)
    svi = pyro.infer.SVI(
        script.model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()
    )
    losses = [svi.step(x, y) for _ in range(3)]
    assert all(torch.isfinite(torch.tensor(losses)))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_ours_draws_from_it(path):
    script = ModelScript.load(path)
    train, test = script.data.train, script.data.test
    density = LogDensity(script.model, train.x, train.y)
    if path.stem in EXPECTED:
        found = (
            density.dim,
            len(train.x),
            len(test.x),
            likelihood_kind(density, test.x, test.y),
        )
        assert found == EXPECTED[path.stem]
    mcmc = MCMC(
        HMC(density, num_steps=5), 4, warmup_steps=30, num_chains=2, seed=0, disable_progbar=True
    )
    mcmc.run()
    assert density.gradient_path.startswith("ATen graph")
    draws = mcmc.get_samples(group_by_chain=True)
    assert set(draws) == set(density.sites)
    assert all(bool(value.isfinite().all()) for value in draws.values())
    # Better than where it started: the potential has fallen.
    start = density.initial_position(2, torch.Generator().manual_seed(0))
    end = density.unconstrain({name: value[:, -1] for name, value in draws.items()})
    assert bool((density.potential(end) < density.potential(start)).all())
