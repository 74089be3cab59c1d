"""Identities hold for exact draws and fail for others."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_bnn.errors import UserError
from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import (
    OrbitGibbs,
    discover,
    identities,
    output_shift,
    virial,
    write_identities,
)
from pyro_bnn.trace import open_trace, site_dataset

SCALES = {"w1": 1.0, "b1": 0.7, "w2": 0.5, "b2": 2.0}
SHAPES = {"w1": (3, 5), "b1": (5,), "w2": (5, 4), "b2": (4,)}


def model(x, y):
    w = {
        name: pyro.sample(name, dist.Normal(torch.zeros(shape), SCALES[name]).to_event(len(shape)))
        for name, shape in SHAPES.items()
    }
    logits = torch.relu(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


@pytest.fixture(scope="module")
def group():
    generator = torch.Generator().manual_seed(0)
    return discover(model, torch.randn(6, 3, generator=generator), torch.arange(6) % 4)


def prior_draws(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: SCALES[name] * torch.randn(n, *shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def posterior_draws(n):
    """Exact draws: the prior, accepted in proportion to the likelihood."""
    theta = prior_draws(n)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()
    hidden = torch.relu(x @ theta["w1"] + theta["b1"][:, None])
    logits = hidden @ theta["w2"] + theta["b2"][:, None]
    chances = logits.log_softmax(-1)
    likelihood = chances[:, 0, 0] + chances[:, 1, 1]
    generator = torch.Generator().manual_seed(1)
    keep = torch.rand(n, generator=generator).log() < likelihood - likelihood.max()
    return {k: v[keep] for k, v in theta.items()}


def test_what_preserves_the_prior_is_recorded(group):
    assert group.preserves_prior == {
        "h0": True,
        "scale of h0": False,
        "shift of w2": False,
        "shift of b2": False,
    }
    assert group.shifts == {"w2": 1, "b2": 0}
    assert "in part" in str(group)


def test_identities_hold_for_exact_posterior_draws(group):
    theta = posterior_draws(20_000)
    assert len(theta["b1"]) > 500
    found = identities(group, theta, SCALES)
    assert set(found) == {
        "virial of h0",
        "output shift of w2",
        "output shift of b2",
        "exchangeability of h0",
    }
    assert (found["virial of h0"].expectation == 0).all()
    for identity in found.values():
        assert abs(identity.pooled_z) < 4
        assert (np.abs(identity.z) < 4.5).all()


def test_identities_catch_wrong_scales_and_agree_with_autograd(group):
    theta = prior_draws(2000)
    wrong = {**theta, "w1": 1.3 * theta["w1"], "b2": 0.5 * theta["b2"]}
    found = identities(group, wrong, SCALES)
    assert found["virial of h0"].pooled_z > 5
    assert found["output shift of b2"].pooled_z < -5

    def log_prior(params):
        return sum(-0.5 * (params[k] / s).square().flatten(1).sum(-1) for k, s in SCALES.items())

    by_autograd = identities(group, wrong, log_prior)["stein of h0"]
    np.testing.assert_allclose(by_autograd.value, found["virial of h0"].value, rtol=1e-10)
    shaped = {k: v.reshape(4, 500, *v.shape[1:]).numpy() for k, v in wrong.items()}
    assert identities(group, shaped, SCALES)["virial of h0"].value == pytest.approx(
        found["virial of h0"].value
    )


@pytest.fixture(scope="module")
def density():
    return LogDensity(model, torch.randn(6, 3), torch.arange(6) % 4)


def test_a_density_knows_its_prior_and_its_temperature(group, density):
    theta = prior_draws(500)
    by_scales = identities(group, theta, SCALES)
    by_density = identities(group, theta, density)
    assert set(by_scales) == set(by_density)
    for name, identity in by_scales.items():
        np.testing.assert_allclose(by_density[name].value, identity.value, rtol=1e-6, atol=1e-6)
    hot = {name: 2**0.5 * value for name, value in theta.items()}
    tempered = identities(group, hot, density.tempered(posterior=2.0))
    value = tempered["virial of h0"].value
    np.testing.assert_allclose(value, by_scales["virial of h0"].value, rtol=1e-6, atol=1e-6)


def odd_prior(x, y):
    """Use priors that are not normal, and a scale of the first layer that is a site."""
    tau = pyro.sample("tau", dist.HalfNormal(torch.tensor(1.5).double()))
    zeros = {name: torch.zeros(shape).double() for name, shape in SHAPES.items()}
    w1 = pyro.sample("w1", dist.StudentT(6.0, zeros["w1"], 1.0).to_event(2))
    b1 = pyro.sample("b1", dist.Laplace(zeros["b1"], 0.5).to_event(1))
    w2 = pyro.sample("w2", dist.Normal(zeros["w2"], 0.5).to_event(2))
    b2 = pyro.sample("b2", dist.Laplace(zeros["b2"], 1.0).to_event(1))
    logits = torch.relu(x @ (tau * w1) + tau * b1) @ w2 + b2
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def odd_draws(n, temperature):
    """Draw from that prior raised to 1 / temperature, in the unconstrained coordinates."""
    rng = np.random.default_rng(0)
    df = 7.0 / temperature - 1
    values = {
        "tau": rng.gamma(0.5 / temperature, 2 * 1.5**2 * temperature, n) ** 0.5,
        "w1": (6 / df) ** 0.5 * rng.standard_t(df, (n, *SHAPES["w1"])),
        "b1": rng.laplace(0, 0.5 * temperature, (n, *SHAPES["b1"])),
        "w2": rng.normal(0, 0.5 * temperature**0.5, (n, *SHAPES["w2"])),
        "b2": rng.laplace(0, temperature, (n, *SHAPES["b2"])),
    }
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.fixture(scope="module")
def odd_problem():
    density = LogDensity(odd_prior, torch.randn(6, 3).double(), torch.arange(6) % 4)
    return density, discover(density)


@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_stein_identities_hold_for_priors_of_any_form(odd_problem, temperature):
    density, group = odd_problem
    draws = odd_draws(4000, temperature)
    found = identities(group, draws, density.tempered(posterior=temperature))
    assert {"stein of h0", "stein of overall scale", "output shift of b2"} <= set(found)
    for identity in found.values():
        assert abs(identity.pooled_z) < 4.5
        assert (np.abs(identity.z) < 4.5).all()
    wrong = {**draws, "tau": 1.5 * draws["tau"], "b2": 1.3 * draws["b2"]}
    found = identities(group, wrong, density.tempered(posterior=temperature))
    assert found["stein of overall scale"].pooled_z > 5
    assert found["output shift of b2"].pooled_z > 5


def test_units_are_exchangeable_unless_chains_keep_their_order(group):
    n = 2000
    theta = prior_draws(n)
    found = identities(group, theta, SCALES)["exchangeability of h0"]
    np.testing.assert_allclose(found.expectation, 0.2)
    assert found.value.sum() == pytest.approx(1.0)
    assert (np.abs(found.z) < 4.5).all()
    kept = {**theta, "w1": theta["w1"] * torch.tensor([1.5, 1.0, 1.0, 1.0, 1.0])}
    found = identities(group, kept, SCALES)["exchangeability of h0"]
    assert found.z[0] > 5
    assert found.pooled_z < -5
    stuck = {**theta, "w1": theta["w1"] * torch.tensor([1e6, 1.0, 1.0, 1.0, 1.0])}
    found = identities(group, stuck, SCALES)["exchangeability of h0"]
    assert found.z[0] == np.inf
    assert found.z[1] == -np.inf


def test_members_of_one_draw_each_have_the_error_of_their_spread(group):
    members = {k: v[:, None] for k, v in prior_draws(400).items()}
    found = identities(group, members, SCALES)["virial of h0"]
    alone = identities(group, {k: v[:, 0] for k, v in members.items()}, SCALES)["virial of h0"]
    np.testing.assert_allclose(found.value, alone.value)
    np.testing.assert_allclose(found.error, alone.error, rtol=0.3)


def test_errors_grow_with_autocorrelation(group):
    theta = prior_draws(500)
    repeated = {name: value.repeat_interleave(20, 0) for name, value in theta.items()}
    once = identities(group, theta, SCALES)["virial of h0"]
    often = identities(group, repeated, SCALES)["virial of h0"]
    np.testing.assert_allclose(often.error, once.error, rtol=0.35)


def labelled(theta, group):
    chains = {name: value.reshape(4, -1, *value.shape[1:]) for name, value in theta.items()}
    return xr.DataTree.from_dict({"posterior": site_dataset(chains, group.dims)})


@pytest.fixture
def trace_file(group, tmp_path):
    path = tmp_path / "trace.nc"
    labelled(prior_draws(800), group).to_netcdf(path)
    return path


def test_a_trace_gets_a_group_of_identities(group, density, trace_file, monkeypatch):
    monkeypatch.setattr("pyro_bnn.symmetry.identities_of_trace.BLOCK_BYTES", 2**14)
    write_identities(trace_file, density, group)
    theta = {name: v.reshape(4, -1, *v.shape[1:]) for name, v in prior_draws(800).items()}
    expected = identities(group, theta, SCALES)
    with open_trace(trace_file) as trace:
        stored = trace["identities"].to_dataset().load()
        assert set(trace.children) == {"posterior", "identities"}
    assert set(stored.data_vars) == {
        "kind", "where", "unit", "value", "expectation", "mcse", "z"
    }  # fmt: skip
    assert all(variable.dims == ("statement",) for variable in stored.variables.values())
    columns = zip(*(stored[name].values for name in ("kind", "where", "unit")), strict=True)
    table = {(str(k), str(w), int(u)): n for n, (k, w, u) in enumerate(columns)}
    assert set(table) == {
        *(("virial", "h0", unit) for unit in range(-1, 5)),
        *(("output-shift", "w2", unit) for unit in range(-1, 5)),
        *(("output-shift", "b2", unit) for unit in (-1, 0)),
    }
    whole, third = table["virial", "h0", -1], table["virial", "h0", 2]
    identity = expected["virial of h0"]
    assert float(stored["z"][whole]) == pytest.approx(identity.pooled_z, rel=1e-5)
    assert float(stored["value"][third]) == pytest.approx(identity.value[2], rel=1e-5)
    assert float(stored["mcse"][third]) == pytest.approx(identity.error[2], rel=1e-5)
    write_identities(trace_file, density, group)


def test_chains_that_died_are_left_out(group, density, tmp_path):
    theta = prior_draws(800)
    whole = labelled(theta, group)
    broken = whole.copy(deep=True)
    broken["posterior"]["w1"][1, 7] = np.nan
    broken["posterior"]["w2"][3] *= 100.0
    broken.attrs["dead_chains"] = "[3]"
    broken.to_netcdf(tmp_path / "trace.nc")
    write_identities(tmp_path / "trace.nc", density, group)
    with open_trace(tmp_path / "trace.nc") as trace:
        stored = trace["identities"].to_dataset().load()
    assert stored.attrs["chains_left_out"] == "[1, 3]"
    kept = {k: v.reshape(4, -1, *v.shape[1:])[[0, 2]] for k, v in theta.items()}
    expected = identities(group, kept, SCALES)["virial of h0"].pooled_z
    assert float(stored["z"][0]) == pytest.approx(expected, rel=1e-5)


def test_a_network_without_scales_or_shifts_gets_no_group(group, density, trace_file):
    bare = group.__class__(**{**group.__dict__, "families": {}, "translations": {}})
    write_identities(trace_file, density, bare)
    with open_trace(trace_file) as trace:
        assert set(trace.children) == {"posterior"}


def test_helpers_need_neither_model_nor_labels(group):
    theta = prior_draws(800)
    arrays = {name: v.reshape(4, -1, *v.shape[1:]).numpy() for name, v in theta.items()}
    expected = identities(group, arrays, SCALES)
    scales = {"incoming": {"w1": 1.0, "b1": 0.7}, "outgoing": {"w2": 0.5}}
    trace = labelled(theta, group)
    for found in (
        virial(arrays, **scales, unit={"w1": 1, "b1": 0, "w2": 0}),
        virial(trace, **scales, unit="h0"),
        virial(trace["posterior"].to_dataset(), **scales, unit="h0"),
    ):
        for field in ("value", "expectation", "error"):
            wanted = getattr(expected["virial of h0"], field)
            np.testing.assert_allclose(getattr(found, field), wanted, rtol=1e-5, atol=1e-5)
        assert found.pooled == pytest.approx(expected["virial of h0"].pooled, rel=1e-5, abs=1e-5)
    for found in (
        output_shift(arrays, "w2", 0.5, output={"w2": 1}),
        output_shift(trace, "w2", 0.5, output="y0"),
    ):
        np.testing.assert_allclose(found.value, expected["output shift of w2"].value, rtol=1e-5)


def test_helpers_say_what_they_need(group):
    trace = labelled(prior_draws(80), group)
    with pytest.raises(UserError, match="w9"):
        virial(trace, incoming={"w9": 1.0}, outgoing={}, unit="h0")
    with pytest.raises(UserError, match="h0, y0"):
        output_shift(trace, "w2", 1.0, output="classes")
    with pytest.raises(UserError, match="axis of site 'w2'"):
        output_shift({"w2": np.zeros((1, 9, 5, 4))}, "w2", 1.0, output="y0")
    with pytest.raises(UserError, match="lead into"):
        virial(trace, incoming={}, outgoing={}, unit="h0")


def test_orbit_gibbs_satisfies_what_it_draws(group):
    """The scales it draws obey the virial identity for weights that do not."""
    theta = {name: 3 * value for name, value in prior_draws(2000).items()}
    assert identities(group, theta, SCALES)["output shift of w2"].pooled_z > 5
    moved = OrbitGibbs(group, SCALES)(theta, torch.Generator().manual_seed(0))
    assert abs(identities(group, moved, SCALES)["virial of h0"].pooled_z) < 4


def test_identities_refuse_what_does_not_fit(group):
    theta = prior_draws(10)
    with pytest.raises(UserError, match="w1"):
        identities(group, {k: v for k, v in theta.items() if k != "w1"}, SCALES)
    with pytest.raises(UserError, match="deviation"):
        identities(group, theta, {"w1": 1.0})


def test_modules_have_no_prior_and_logits_no_shift():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    group = discover(net, torch.zeros(5, 3))
    assert group.preserves_prior == {}
    assert group.shifts == {}
