"""Plain Pyro results become traces that ArviZ reads."""

from __future__ import annotations

import arviz_base
import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.optim import Adam

from pyro_bnn.errors import UserError
from pyro_bnn.trace import from_pyro, open_trace

X = torch.linspace(-1, 1, 12)[:, None] * torch.tensor([1.0, 0.5])
Y = X @ torch.tensor([1.0, -1.0]) + torch.tensor([0.6, -0.6]).repeat(6)


def model(x, y=None):
    weight = pyro.sample("weight", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    mean = pyro.deterministic("mean", x @ weight)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mean, scale), obs=y)


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.fixture(scope="module")
def mcmc() -> MCMC:
    pyro.set_rng_seed(0)
    sampler = MCMC(NUTS(model), num_samples=150, warmup_steps=50, disable_progbar=True)
    sampler.run(X, Y)
    return sampler


def expected_log_likelihood(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return log N(y | X w, s) in closed form, of shape ``(S, N)``."""
    residual = (Y - weight @ X.T) / scale[:, None]
    return -0.5 * residual**2 - scale[:, None].log() - 0.5 * np.log(2 * np.pi)


def fitted(guide):
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(20):
        svi.step(X, Y)
    return guide


def test_mcmc(mcmc):
    trace = from_pyro(mcmc, dims={"weight": ["feature"], "y": ["row"]}, coords={"feature": [4, 7]})
    assert set(trace.children) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    samples = mcmc.get_samples(group_by_chain=True)
    assert trace["posterior"]["weight"].dims == ("chain", "draw", "feature")
    np.testing.assert_array_equal(trace["posterior"]["weight"], samples["weight"])
    np.testing.assert_array_equal(trace["posterior"]["feature"], [4, 7])
    np.testing.assert_array_equal(trace["observed_data"]["y"], Y)
    likelihood = trace["log_likelihood"]["y"]
    assert likelihood.dims == ("chain", "draw", "row")
    expected = expected_log_likelihood(samples["weight"][0], samples["scale"][0])
    np.testing.assert_allclose(likelihood[0], expected, rtol=1e-4, atol=1e-5)
    assert set(trace.attrs) == {
        "created_at",
        "inference_library",
        "inference_library_version",
    }


def test_arviz_runs_on_the_result(mcmc):
    trace = from_pyro(mcmc, dims={"weight": ["feature"]})
    assert arviz_stats.rhat(trace)["weight"].shape == (2,)
    assert (arviz_stats.ess(trace)["scale"] > 0).all()
    summary = arviz_stats.summary(trace, round_to="none")
    assert list(summary.index) == ["scale", "weight[0]", "weight[1]"]
    assert summary["mean"]["scale"] == pytest.approx(float(mcmc.get_samples()["scale"].mean()))
    assert np.isfinite(arviz_stats.loo(trace).elpd)


def test_a_converted_trace_goes_through_a_file(mcmc, tmp_path):
    trace = from_pyro(mcmc)
    trace.to_netcdf(tmp_path / "plain.nc", engine="netcdf4")
    back = open_trace(tmp_path / "plain.nc")
    assert back.load().equals(trace)
    back.close()


def test_divergences_are_put_at_their_draws():
    class Sampler:
        def get_samples(self, group_by_chain):
            assert group_by_chain
            return {"w": torch.randn(12, 5)}

        def diagnostics(self):
            return {"divergences": {"chain 2": [0, 4], "chain 10": [3], "chain 0": []}}

    stats = from_pyro(Sampler())["sample_stats"]
    assert list(zip(*np.nonzero(stats["diverging"].values), strict=True)) == [
        (2, 0),
        (2, 4),
        (10, 3),
    ]


def test_a_dict_of_draws():
    draws = {"weight": torch.randn(3, 50, 2), "scale": torch.rand(3, 50) + 0.5}
    trace = from_pyro(draws, model=model, model_args=(X, Y))
    assert trace["posterior"].sizes["chain"] == 3
    likelihood = trace["log_likelihood"]["y"].values.reshape(150, 12)
    expected = expected_log_likelihood(draws["weight"].flatten(0, 1), draws["scale"].flatten())
    np.testing.assert_allclose(likelihood, expected, rtol=1e-4, atol=1e-5)
    assert "log_likelihood" not in from_pyro(draws).children
    assert "log_likelihood" not in from_pyro(
        draws, model=model, model_args=(X, Y), log_likelihood=False
    )


def test_draws_with_one_leading_axis():
    flat = {"weight": torch.arange(24.0).reshape(12, 2), "scale": torch.rand(12)}
    one = from_pyro(flat)["posterior"]
    assert dict(one.sizes) == {"chain": 1, "draw": 12, "weight_dim_0": 2}
    three = from_pyro(flat, num_chains=3)["posterior"]
    np.testing.assert_array_equal(three["weight"][1], flat["weight"][4:8])
    with pytest.raises(UserError, match=r"'weight' start with the axes .* give num_chains"):
        from_pyro({"weight": flat["weight"]})
    with pytest.raises(UserError, match="cannot be cut into 5 chains"):
        from_pyro(flat, num_chains=5)


def test_predictive_output_as_the_posterior():
    drawn = Predictive(model, num_samples=20, return_sites=["weight", "scale"])(X)
    assert drawn["weight"].shape == (20, 1, 2)
    dims = {"weight": ["feature"], "scale": []}
    trace = from_pyro(drawn, num_chains=1, dims=dims, model=model, model_args=(X, Y))
    np.testing.assert_array_equal(trace["posterior"]["weight"][0], drawn["weight"][:, 0])
    expected = expected_log_likelihood(drawn["weight"][:, 0], drawn["scale"][:, 0])
    np.testing.assert_allclose(trace["log_likelihood"]["y"][0], expected, rtol=1e-3, atol=1e-4)


def test_predictive_groups(mcmc):
    samples = mcmc.get_samples()
    seen = Predictive(model, samples, return_sites=["y"])(X)
    new = Predictive(model, samples, return_sites=["y"])(2 * X[:5])
    prior = Predictive(model, num_samples=30)(X)
    trace = from_pyro(
        mcmc,
        prior=prior,
        posterior_predictive=seen,
        predictions=new,
        constant_data={"x": X},
        predictions_constant_data={"x": 2 * X[:5]},
        dims={"x": ["row", "feature"]},
        pred_dims={"y": ["new"], "x": ["new", "feature"]},
        log_likelihood=False,
    )
    assert dict(trace["posterior_predictive"].sizes) == {"chain": 1, "draw": 150, "y_dim_0": 12}
    np.testing.assert_array_equal(trace["posterior_predictive"]["y"][0], seen["y"])
    assert trace["predictions"]["y"].dims == ("chain", "draw", "new")
    assert trace["predictions_constant_data"]["x"].dims == ("new", "feature")
    assert trace["constant_data"]["x"].dims == ("row", "feature")
    assert set(trace["prior"].data_vars) == {"weight", "scale"}
    assert set(trace["prior_predictive"].data_vars) == {"y", "mean"}
    assert trace["prior"]["weight"].shape == (1, 30, 2)
    assert arviz_base.extract(trace, group="posterior_predictive").sizes["sample"] == 150


def test_predictive_draws_follow_the_chains_of_the_posterior():
    posterior = {"w": torch.randn(4, 6)}
    drawn = torch.arange(24.0)
    for predictive in (drawn, drawn.reshape(4, 6)):
        trace = from_pyro(posterior, posterior_predictive={"y": predictive})
        np.testing.assert_array_equal(trace["posterior_predictive"]["y"], drawn.reshape(4, 6))
    trace = from_pyro(posterior, posterior_predictive={"y": drawn[:9]})
    np.testing.assert_array_equal(trace["posterior_predictive"]["y"], drawn[None, :9])


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_autoguides(autoguide):
    guide = fitted(autoguide(model))
    trace = from_pyro(guide, model_args=(X, Y), num_samples=40)
    posterior = trace["posterior"]
    assert set(posterior.data_vars) == {"weight", "scale"}
    assert posterior["weight"].shape == (1, 40, 2)
    assert trace["log_likelihood"]["y"].shape == (1, 40, 12)
    spread = posterior["weight"].std("draw").values
    assert (spread < 1e-6).all() if autoguide is AutoDelta else (spread > 0.01).all()
    median = guide.median(X, Y)["weight"].detach()
    assert abs(posterior["weight"].mean("draw").values[0] - median.numpy()).max() < 0.5
    assert len(arviz_stats.summary(trace, kind="stats")) == 3


def test_a_guide_by_hand():
    def guide(x, y=None):
        loc = pyro.param("loc", torch.tensor([3.0, -3.0]))
        pyro.sample("weight", dist.Normal(loc, 0.01).to_event(1))
        pyro.sample("scale", dist.LogNormal(0.0, 0.1))

    trace = from_pyro(guide, model=model, model_args=(X, Y), num_samples=20)
    mean = trace["posterior"]["weight"].mean(("chain", "draw"))
    np.testing.assert_allclose(mean, [3.0, -3.0], atol=0.05)
    assert trace["log_likelihood"]["y"].shape == (1, 20, 12)


def test_what_cannot_be_converted_is_named():
    with pytest.raises(UserError, match="cannot read a float"):
        from_pyro(3.0)
    with pytest.raises(UserError, match="Nothing to convert"):
        from_pyro()
    draws = {"weight": torch.randn(3, 50, 2)}
    with pytest.raises(UserError, match="samples the site 'scale', of which there are no draws"):
        from_pyro(draws, model=model, model_args=(X, Y))
    with pytest.raises(UserError, match="needs the model and its observations"):
        from_pyro(draws, log_likelihood=True)
    with pytest.raises(UserError, match="no latent sample site"):
        from_pyro(lambda: None)
