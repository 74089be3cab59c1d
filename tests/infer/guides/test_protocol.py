"""What every guide and every ensemble of it has to do; new guides are covered by being listed."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO

from pyro_bnn import LogDensity, UserError, infer
from pyro_bnn.infer import guides
from pyro_bnn.infer.guides import (
    SWAG,
    Dropout,
    Ensemble,
    FullRank,
    Guide,
    Laplace,
    LowRank,
    MeanField,
    PointEstimate,
    Snapshots,
    Training,
)
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.trace import open_trace

BRIEF = Training(epochs=3, batch_size=8, learning_rate=0.01)

GUIDES = {
    "PointEstimate": lambda model: PointEstimate(model, BRIEF),
    "SWAG": lambda model: SWAG(model, BRIEF, collect_epochs=3, rank=2),
    "MeanField": lambda model: MeanField(model, BRIEF, particles=2, kl_weight=0.5),
    "MeanField, local": lambda model: MeanField(model, BRIEF, estimator="local"),
    "LowRank": lambda model: LowRank(model, BRIEF, rank=2),
    "FullRank": lambda model: FullRank(model, BRIEF),
    "Laplace": lambda model: Laplace(model, BRIEF),
    "Laplace, Hessian": lambda model: Laplace(model, BRIEF, structure="hessian"),
    "Laplace, last layer": lambda model: Laplace(model, BRIEF, structure="last-layer"),
    "Dropout": lambda model: Dropout(model, BRIEF),
    "Snapshots": lambda model: Snapshots(
        infer.HMC(model, num_steps=2), num_samples=6, warmup_steps=4
    ),
}
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}


# Kept for the slow run: what differs from the guide beside it has tests of its own.
SLOW = {"MeanField, local"}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else (), id=name)
        for name in GUIDES
    ]
)
def build(request):
    """Return a function from a model to a guide."""
    return GUIDES[request.param]


def test_every_guide_is_listed():
    exported = {getattr(guides, name) for name in guides.__all__}
    kinds = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, Guide)}
    built = {name.partition(",")[0] for name in GUIDES}
    assert {kind.__name__ for kind in kinds - {Guide, Ensemble}} == built


def test_an_ensemble_and_its_members(net, build):
    """Shapes, equality with members alone, densities, and saving, of one training."""
    ensemble = Ensemble(build(net.density), size=2).fit(seed=3)
    alone = [build(net.density).fit(seed=seed) for seed in ensemble.seeds]
    assert ensemble.members == [0, 1]
    assert ensemble.failures == []
    assert ensemble.seeds[0] == 3
    for member, guide in enumerate(alone):
        for name, value in guide.state.items():
            torch.testing.assert_close(
                ensemble.state[name][member], value[0], rtol=1e-6, atol=1e-8, msg=name
            )
    one = Ensemble(build(net.density), size=1).fit(seed=3)
    first = alone[0]
    for name, value in first.state.items():
        assert torch.equal(one.state[name], value)

    draws = ensemble.sample_posterior(4, torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        name: (2, 4, *shape) for name, shape in SHAPES.items()
    }
    assert all(value.dtype == torch.float64 for value in draws.values())
    assert all(value.device == net.x.device for value in draws.values())
    assert not any(value.requires_grad for value in draws.values())
    again = ensemble.sample_posterior(4, torch.Generator().manual_seed(0))
    assert all(torch.equal(again[name], value) for name, value in draws.items())
    assert torch.equal(
        one.sample_posterior(3, torch.Generator().manual_seed(1))["0.weight"],
        first.sample_posterior(3, torch.Generator().manual_seed(1))["0.weight"],
    )

    position = ensemble.sample_positions(4)
    if ensemble.has_density:
        found = ensemble.log_density(position)
        assert found.shape == (2, 4)
        assert found.isfinite().all()
    else:
        with pytest.raises(UserError, match="has no density"):
            ensemble.log_density(position)

    copy = Ensemble(build(net.density), size=2)
    with pytest.raises(UserError, match="has not been fitted"):
        copy.sample_posterior(1)
    copy.load_state_dict(ensemble.state_dict())
    loaded = copy.sample_posterior(4, torch.Generator().manual_seed(0))
    assert all(torch.equal(loaded[name], value) for name, value in draws.items())


def test_pyros_contract(net, build):
    """Called as a guide by `Predictive`, and by `SVI` where it has parameters."""
    guide = build(net.density).fit(seed=0)
    traced = pyro.poutine.trace(guide).get_trace(net.x, net.y)
    visible = {n for n in traced.stochastic_nodes if not n.startswith("_pyro_bnn")}
    assert visible == set(SHAPES)
    predicted = Predictive(net.model, guide=guide, num_samples=3)(net.x[:5])
    assert predicted["y"].shape == (3, 5)
    if guide.trainable:
        before = {name: value.clone() for name, value in guide.state.items()}
        svi = SVI(net.model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        losses = [svi.step(net.x, net.y) for _ in range(2)]
        assert all(torch.isfinite(torch.tensor(losses)))
        assert any(not torch.equal(guide.state[n], before[n]) for n in guide.trainable)


def test_a_run_is_a_trace_and_goes_on(net, build, tmp_path, monkeypatch):
    def run(folder):
        return GuideRun(
            Ensemble(build(net.density), size=2),
            num_samples=5,
            run_dir=tmp_path / folder,
            seed=1,
            segment_draws=2,
        )

    run("whole").run()
    with open_trace(tmp_path / "whole") as trace:
        whole = trace.load()
    assert dict(whole["posterior"].sizes)["chain"] == 2
    assert dict(whole["posterior"].sizes)["draw"] == 5
    assert whole["posterior"]["0.weight"].shape == (2, 5, 4, 3)
    stats = whole["sample_stats"]
    values = {n: torch.from_numpy(whole["posterior"][n].to_numpy()[:, 3]) for n in SHAPES}
    energy = net.density.potential(net.density.unconstrain(values))
    torch.testing.assert_close(torch.from_numpy(stats["lp"].to_numpy()[:, 3]), -energy)
    assert ("log_q" in stats) == build(net.density).has_density

    stopped = run("stopped")
    segment = stopped._segment

    def dying(place, *rest):
        if place == 1:
            raise KeyboardInterrupt
        return segment(place, *rest)

    monkeypatch.setattr(stopped, "_segment", dying)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = run("stopped")
    resumed.run(resume=True)
    assert resumed.progress.draws == 5
    with open_trace(tmp_path / "stopped") as trace:
        for name in SHAPES:
            assert (trace["posterior"][name].to_numpy() == whole["posterior"][name]).all()


def constrained(x, y=None):
    with pyro.plate("groups", 2):
        level = pyro.sample("level", dist.Normal(torch.zeros(2), 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(level[0] + level[1] * x, 0.1 + scale), obs=y)


@pytest.mark.parametrize(
    "name",
    ["PointEstimate", "MeanField", pytest.param("LowRank", marks=pytest.mark.slow), "FullRank"],
)
def test_svi_minimises_what_fit_does(name):
    """In float32, with a site in a plate and a positive one, whose Jacobian counts."""
    x = torch.linspace(-1, 1, 12)
    y = 0.5 + x
    density = LogDensity(constrained, x, y)
    guide = GUIDES[name](constrained)
    guide.setup(x, y)
    svi = SVI(constrained, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=60))
    svi.step(x, y)  # the guide starts, in Pyro's hands
    loss = svi.evaluate_loss(x, y)
    position = guide.sample_positions(4000)
    expected = density.potential(position[0])
    if guide.has_density:
        expected = expected + guide.log_density(position)[0]
    error = 5 * float(expected.std()) / 60**0.5 + 1e-4
    assert abs(loss - float(expected.mean())) < error
    assert guide.sample_posterior(1)["scale"].dtype == torch.float32
    assert (guide.sample_posterior(20)["scale"] > 0).all()


def test_what_is_not_fitted_says_so(net):
    with pytest.raises(UserError, match="does not know the model's sites yet"):
        _ = MeanField(net.model).density
    with pytest.raises(UserError, match="SWAG has not been fitted"):
        SWAG(net.model)(net.x, net.y)
    with pytest.raises(UserError, match="Ensemble of an Ensemble"):
        Ensemble(Ensemble(PointEstimate(net.model), size=2), size=2)
    with pytest.raises(UserError, match="size is 0"):
        Ensemble(PointEstimate(net.model), size=0)
    with pytest.raises(UserError, match="num_samples is 0"):
        PointEstimate(net.density).sample_posterior(0)
    with pytest.raises(UserError, match="differing numbers of members"):
        PointEstimate(net.density).load_state_dict({"a": torch.ones(1), "b": torch.ones(2)})
    with pytest.raises(UserError, match="covers 3 weights, the model's sites have 26"):
        PointEstimate(net.density).load_state_dict({"position": torch.ones(1, 3)})
