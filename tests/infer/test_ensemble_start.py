"""Ensemble starts: optima, early stopping, and what a run says of its members."""

from __future__ import annotations

import functools
import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_bnn import LogDensity, UserError
from pyro_bnn.infer import HMC, MCMC, ensemble_start
from pyro_bnn.infer.cli.app import infer
from pyro_bnn.trace import open_trace

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0, 0.5]).double() + 0.3 * torch.sin(9 * X[:, 0])
NOISE = 0.5


def regression(x, y):
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, NOISE), obs=y)


def bimodal(x, y):
    """Regress on the square of a weight: one mode for each of its signs."""
    weight = pyro.sample("weight", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(weight**2 * x[:, 0], NOISE), obs=y)


@functools.cache
def density(model):
    return LogDensity(model, X, Y)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mode():
    precision = X.mT @ X / NOISE**2 + torch.eye(3)
    return torch.linalg.solve(precision, X.mT @ Y / NOISE**2)


@pytest.mark.parametrize("batch_size", [None, 20])
def test_members_reach_the_mode(batch_size):
    start = ensemble_start(
        density(regression),
        3,
        6,
        generator(),
        epochs=400,
        learning_rate=0.05 if batch_size is None else 0.02,
        batch_size=batch_size,
        held_out=0.0,
    )
    assert start.members == [0, 0, 1, 1, 2, 2]
    assert start.converged == [True] * 3
    off = (start.params["weight"] - mode()).abs().max()
    assert float(off) < (1e-3 if batch_size is None else 0.2)
    # The chains of a member start at one point, and the loss is that of the point.
    assert torch.equal(start.params["weight"][::2], start.params["weight"][1::2])
    found = density(regression).potential(start.params)[::2] / 40
    torch.testing.assert_close(start.loss, found)


def test_members_find_different_modes_and_jitter_parts_their_chains():
    start = ensemble_start(
        density(bimodal), 12, 24, generator(), epochs=200, learning_rate=0.05, jitter=0.01
    )
    weight = start.params["weight"]
    assert {-1.0, 1.0} == set(weight.sign().tolist())
    assert float((weight.abs() - weight.abs().mean()).abs().max()) < 0.1
    apart = (weight[::2] - weight[1::2]).abs()
    assert bool((apart > 0).all())
    assert float(apart.max()) < 0.1


def test_a_member_is_the_same_whatever_its_company():
    """Members share operators only: the first of four is where it is when it trains alone."""
    many = ensemble_start(density(regression), 4, 4, generator(), epochs=60, held_out=0.0)
    source = generator()
    torch.randperm(40, generator=source)
    position = density(regression).initial_position(4, source)
    alone = ensemble_start(_From(position[:1]), 1, 1, generator(), epochs=60, held_out=0.0)
    torch.testing.assert_close(many.params["weight"][:1], alone.params["weight"])


class _From:
    """The regression density with a start that is given."""

    def __init__(self, position):
        self._position = position

    def __getattr__(self, name):
        return getattr(density(regression), name)

    def initial_position(self, count, generator):
        return self._position


def test_held_out_rows_stop_a_member():
    """Adam overshoots: the loss of the rows held out has a least value on its way to the mode."""
    settings = {"epochs": 150, "learning_rate": 0.1, "held_out": 0.25, "patience": 5}
    start = ensemble_start(density(regression), 4, 4, generator(), **settings)
    assert int(start.epochs.max()) < 145
    assert all(start.converged)
    # The loss is that of the rows held out, at the positions that are kept.
    held = torch.randperm(40, generator=generator())[:10]
    found = -density(regression).log_likelihood(start.params, held) / 40
    torch.testing.assert_close(found, start.loss)
    # More patience finds no worse ones; without rows that judge all epochs are made.
    longer = ensemble_start(density(regression), 4, 4, generator(), **settings | {"patience": 150})
    assert bool((start.loss >= longer.loss).all())
    end = ensemble_start(density(regression), 4, 4, generator(), **settings | {"held_out": 0.0})
    assert bool((end.epochs == 150).all())


def test_members_that_do_not_converge_are_named():
    start = ensemble_start(density(regression), 3, 3, generator(), epochs=3, learning_rate=1e6)
    assert start.converged == [False] * 3
    assert bool(start.params["weight"].isfinite().all())
    assert start.epochs.tolist() == [0, 0, 0]


def test_chains_sample_from_their_starts():
    start = ensemble_start(density(regression), 2, 4, generator(), epochs=100)
    kernel = HMC(density(regression), step_size=1e-9, num_steps=1, adapt_step_size=False)
    mcmc = MCMC(kernel, 1, warmup_steps=0, num_chains=4, initial_params=start.params)
    mcmc.run()
    torch.testing.assert_close(mcmc.get_samples()["weight"], start.params["weight"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"members": 3, "num_chains": 4}, "4 chains cannot start from 3 members"),
        ({"held_out": 0.9}, r"held_out is 0\.9"),
        ({"epochs": 0}, "epochs is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"batch_size": 37}, "between 1 and the 36 rows that train"),
    ],
)
def test_settings_out_of_range(settings, sentence):
    settings = {"members": 2, "num_chains": 4, **settings}
    with pytest.raises(UserError, match=sentence):
        ensemble_start(density(regression), generator=generator(), **settings)


def test_a_model_without_rows_holds_none_out():
    def scalar():
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.tensor(0.5))

    found = LogDensity(scalar)
    with pytest.raises(UserError, match="held_out = 0"):
        ensemble_start(found, 1, 1, generator())
    start = ensemble_start(found, 1, 1, generator(), epochs=300, learning_rate=0.05, held_out=0.0)
    assert float(start.params["mean"]) == pytest.approx(0.25, abs=1e-3)


# From a recipe

SCRIPT = """
import pyro
import pyro.distributions as dist
import torch
from pyro_bnn import Data, Split

def model(x, y=None):
    v = pyro.sample("v", dist.Normal(x.new_zeros(2, 3), 1.0).to_event(2))
    w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(torch.relu(x @ v) @ w, 0.5), obs=y)

def data():
    x = torch.linspace(-1, 1, 24).reshape(12, 2)
    return Data(Split(x, x[:, 0]), Split(x[:5], x[:5, 0]))
"""

RECIPE = """
[kernel]
name = "hmc"
num_steps = 3
[start]
from = "ensemble"
members = 2
epochs = 20
[orbit]
every = 2
[run]
chains = 4
draws = 8
warmup = 20
threads = 1
"""


FULL_BATCH = """
[kernel]
name = "hmc"
trajectory_length = 1.6
step_size = 0.1
adapt_step_size = false
adapt_mass_matrix = false
[start]
from = "ensemble"
members = 3
epochs = 20
[quotient]
enabled = false
[run]
chains = 3
draws = 4
warmup = 2
threads = 1
"""


def run_recipe(tmp_path, text):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    infer(tmp_path / "script.py", recipe, out=out, no_report=True)
    return out


def test_a_recipe_starts_from_an_ensemble_and_moves_along_orbits(tmp_path, capsys):
    out = run_recipe(tmp_path, RECIPE)
    assert "did not converge" not in capsys.readouterr().out
    with open_trace(out / "trace.nc") as trace:
        assert json.loads(trace.attrs["members"]) == [0, 0, 1, 1]
        assert json.loads(trace.attrs["members_not_converged"]) == []
        assert len(json.loads(trace.attrs["member_loss"])) == 2
        draws = trace["posterior"]["w"].values
    assert np.isfinite(draws).all()
    # Resumed, a finished run stays as it is, and knows its members.
    infer(out=out, resume=True, no_report=True)
    with open_trace(out / "trace.nc") as trace:
        assert json.loads(trace.attrs["members"]) == [0, 0, 1, 1]
        np.testing.assert_array_equal(trace["posterior"]["w"].values, draws)


def test_the_command_names_members_that_did_not_converge(tmp_path, capsys):
    run_recipe(tmp_path, FULL_BATCH.replace("epochs = 20", "epochs = 2\nlearning_rate = 1e6"))
    assert "3 of 3 did not converge and are kept: 0, 1, 2" in capsys.readouterr().out


def test_full_batch_gradients_over_chunks_give_the_same_run(tmp_path, capsys):
    """A fixed step and trajectory, as in Izmailov et al. 2021, with rows in one chunk or three."""
    drawn = []
    for chunks in ("", "chunk_rows = 5"):
        folder = tmp_path / (chunks[:5] or "whole")
        folder.mkdir()
        out = run_recipe(folder, FULL_BATCH + chunks)
        with open_trace(out / "trace.nc") as trace:
            drawn.append(trace["posterior"]["w"].values)
            assert set(trace["sample_stats"]["n_steps"].values.ravel()) == {16}
    np.testing.assert_allclose(drawn[1], drawn[0], rtol=1e-3, atol=1e-4)
