"""Batch norm in training mode: fitted by minibatches, predicting by each draw's own statistics."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import nn

from pyro_bnn import LogDensity, infer
from pyro_bnn.errors import UserError
from pyro_bnn.infer.guides import (
    SWAG,
    Dropout,
    Ensemble,
    FullRank,
    Laplace,
    LowRank,
    MeanField,
    PointEstimate,
    Snapshots,
    Training,
)
from pyro_bnn.infer.guides.run import GuideRun
from pyro_bnn.infer.predict import predict
from pyro_bnn.nn import Normal, categorical, lift
from pyro_bnn.symmetry import OrbitMove, Quotient, discover
from pyro_bnn.trace import export_checkpoints, from_pyro, import_checkpoints, open_trace

BRIEF = Training(epochs=3, batch_size=8, learning_rate=0.01)
GUIDES = {
    "PointEstimate": lambda model: PointEstimate(model, BRIEF),
    "SWAG": lambda model: SWAG(model, BRIEF, collect_epochs=3, rank=2),
    "MeanField": lambda model: MeanField(model, BRIEF, particles=2),
    "LowRank": lambda model: LowRank(model, BRIEF, rank=2),
    "FullRank": lambda model: FullRank(model, BRIEF),
    "Laplace, diagonal": lambda model: Laplace(model, BRIEF, structure="diag"),
    "Laplace, Hessian": lambda model: Laplace(model, BRIEF, structure="hessian"),
    "Laplace, last layer": lambda model: Laplace(model, BRIEF, structure="last-layer"),
    "Dropout": lambda model: Dropout(model, BRIEF),
    "Snapshots": lambda model: Snapshots(
        infer.SGLD(model, batch_size=8), num_samples=6, warmup_steps=4
    ),
}
MEAN, VARIANCE = "1.running_mean", "1.running_var"


class Normed:
    """A lifted classifier in float64 whose batch norm is in training mode."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = (2 * torch.randn(24, 3, generator=generator) + 1).double()
        self.y = (self.x[:, 0] > 1).long()
        self.new = torch.randn(7, 3, generator=generator).double()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)
            ).double()
        self.bnn = lift(self.net, prior=Normal(1.0))
        self.density = LogDensity(self.model, self.x, self.y)

    def model(self, x, y=None):
        """Classify."""
        return categorical(self.bnn(x), y)

    def at(self, values):
        """Return the network itself, with the tensors of a draw that it has."""
        net = copy.deepcopy(self.net)
        net.load_state_dict({**net.state_dict(), **values})
        return net

    def statistics(self, values, batches):
        """Return what torch keeps of batches, averaged."""
        net = self.at({n: v for n, v in values.items() if not n.startswith("1.running")}).train()
        net[1].momentum = None
        net[1].reset_running_stats()
        with torch.no_grad():
            for batch in batches:
                net(batch)
        return net[1].running_mean, net[1].running_var

    def probabilities(self, values, x):
        """Return what the network predicts in evaluation mode, by the statistics of a draw."""
        with torch.no_grad():
            return self.at(values).eval()(x).softmax(-1)


@pytest.fixture(scope="module")
def normed():
    """Return the classifier."""
    return Normed()


# Kept for the slow run: others of their kind are tested always.
SLOW = {"MeanField", "FullRank", "Laplace, last layer"}


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.slow if name in SLOW else (), id=name)
        for name, kind in GUIDES.items()
    ]
)
def build(request):
    """Return a function from a model to a guide."""
    return request.param


def each(draws):
    """Go through the draws of all members."""
    members, count = next(iter(draws.values())).shape[:2]
    for member in range(members):
        for draw in range(count):
            yield {name: value[member, draw] for name, value in draws.items()}


def test_gradients_are_those_of_torch_in_training_mode(normed):
    position = 0.5 * torch.randn(3, normed.density.dim, generator=torch.manual_seed(1)).double()
    for rows in (None, torch.tensor([3, 1, 9, 20])):
        value, gradient = normed.density.value_and_grad(position, rows)
        for chain, values in enumerate(_rows(normed.density.constrain(position))):
            net = normed.at(values).train()
            x, y = (normed.x, normed.y) if rows is None else (normed.x[rows], normed.y[rows])
            loss = nn.functional.cross_entropy(net(x), y, reduction="sum") * (24 / len(x))
            prior = torch.distributions.Normal(0, 1)
            energy = loss - sum(prior.log_prob(weight).sum() for weight in net.parameters())
            energy.backward()
            torch.testing.assert_close(value[chain], energy.detach())
            flat = torch.cat([dict(net.named_parameters())[n].grad.flatten() for n in values])
            torch.testing.assert_close(gradient[chain], flat)
    assert normed.density.gradient_path.startswith("ATen graph")


def _rows(values):
    count = len(next(iter(values.values())))
    return [{name: value[k] for name, value in values.items()} for k in range(count)]


def test_every_draw_has_the_statistics_of_its_own_weights(normed, build):
    before = copy.deepcopy(normed.net.state_dict())
    ensemble = Ensemble(build(normed.density), size=2).fit(seed=3)
    for member, seed in enumerate(ensemble.seeds):
        alone = build(normed.density).fit(seed=seed)
        for name, value in alone.state.items():
            torch.testing.assert_close(
                ensemble.state[name][member], value[0], rtol=1e-6, atol=1e-8, msg=name
            )
    draws = ensemble.sample_posterior(3, torch.Generator().manual_seed(0))
    batches = normed.x.split(8)
    for values in each(draws):
        mean, variance = normed.statistics(values, batches)
        torch.testing.assert_close(values[MEAN], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(values[VARIANCE], variance, rtol=1e-10, atol=1e-12)
    for name, value in normed.net.state_dict().items():
        assert torch.equal(value, before[name])  # what was lifted is not touched
    flat = {name: value.flatten(0, 1) for name, value in draws.items()}
    found = predict(normed.density, flat, normed.new, torch.zeros(7).long()).mean
    for predicted, values in zip(found, each(draws), strict=True):
        torch.testing.assert_close(predicted, normed.probabilities(values, normed.new))


def test_rows_that_do_not_fill_a_batch_count_too(normed):
    x, y = normed.x[:21], normed.y[:21]
    guide = PointEstimate(normed.model, BRIEF).fit(x, y, seed=0)
    (values,) = each(guide.sample_posterior(1))
    mean, variance = normed.statistics(values, x.tensor_split(2))
    torch.testing.assert_close(values[MEAN], mean)
    torch.testing.assert_close(values[VARIANCE], variance)


def test_a_run_is_exported_imported_and_reduced(normed, tmp_path):
    guide = Ensemble(SWAG(normed.density, BRIEF, collect_epochs=3, rank=2), size=2)
    group = discover(normed.density)
    assert set(group.statistics) == {MEAN, VARIANCE}
    GuideRun(guide, 3, tmp_path / "run", seed=1, dims=group.dims, segment_draws=2).run()
    with open_trace(tmp_path / "run") as opened:
        trace = opened.load()
    posterior = trace["posterior"].to_dataset()
    assert posterior[MEAN].dims == ("chain", "draw", group.dims[MEAN][0])

    def predicted(data):
        values = {
            name: torch.from_numpy(data[name].to_numpy()).flatten(0, 1)
            for name in normed.density.stored
        }
        return predict(normed.density, values, normed.new, torch.zeros(7).long()).mean

    before = predicted(posterior)
    likelihood = sum(
        torch.distributions.Categorical(
            probs=torch.stack([normed.probabilities(v, normed.x) for v in _draws(posterior)])
        )
        .log_prob(normed.y)
        .unbind(1)
    )
    prior = torch.stack(
        [
            sum(
                torch.distributions.Normal(0, 1).log_prob(v[name]).sum()
                for name in normed.density.sites
            )
            for v in _draws(posterior)
        ]
    )
    recorded = torch.from_numpy(trace["sample_stats"]["lp"].to_numpy()).flatten()
    torch.testing.assert_close(recorded, likelihood + prior)

    export_checkpoints(trace, tmp_path / "exported")
    again = import_checkpoints(tmp_path / "exported", normed.density.stored)
    assert len(again.files) == 6
    assert torch.equal(predicted(again.trace["posterior"]), before)

    quotient = Quotient(group).apply(trace, source=normed.density)
    canonical = quotient["canonical_posterior"]
    assert not torch.equal(
        torch.from_numpy(canonical["0.weight"].to_numpy()),
        torch.from_numpy(posterior["0.weight"].to_numpy()),
    )
    torch.testing.assert_close(predicted(canonical), before, rtol=1e-9, atol=1e-12)


def _draws(data):
    flat = {name: torch.from_numpy(data[name].to_numpy()).flatten(0, 1) for name in data.data_vars}
    return _rows(flat)


def test_pyro_predicts_by_the_statistics_of_each_draw(normed):
    pyro.set_rng_seed(0)

    guide = MeanField(normed.density, BRIEF).fit(seed=0)
    traced = pyro.poutine.trace(guide).get_trace(normed.x, normed.y)
    values = {n: traced.nodes[n]["value"] for n in normed.density.stored}
    told = pyro.poutine.trace(pyro.poutine.condition(normed.model, values)).get_trace(normed.new)
    expected = normed.probabilities(values, normed.new)
    torch.testing.assert_close(told.nodes["y"]["fn"].probs, expected)
    wanted = [*normed.density.stored, "y"]
    found = Predictive(normed.model, guide=guide, num_samples=3, return_sites=wanted)(normed.new)
    for draw in range(3):
        values = {n: found[n][draw].reshape(shape) for n, shape in normed.density.stored.items()}
        mean, _ = normed.statistics(values, normed.x.split(8))
        torch.testing.assert_close(values[MEAN], mean)
    trace = from_pyro(guide, num_samples=2, model=normed.model, model_args=(normed.x, normed.y))
    assert trace["posterior"][VARIANCE].shape == (1, 2, 4)
    assert set(trace["log_likelihood"].data_vars) == {"y"}
    svi = SVI(normed.model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    assert all(svi.step(normed.x, normed.y) < 1e6 for _ in range(2))


def test_full_batch_chains_have_the_statistics_of_all_rows(normed):
    mcmc = infer.MCMC(infer.HMC(normed.density, num_steps=2), 3, 3, num_chains=2, seed=0)
    mcmc.run()
    for values in each(mcmc.get_samples(group_by_chain=True)):
        mean, variance = normed.statistics(values, [normed.x])
        torch.testing.assert_close(values[MEAN], mean)
        torch.testing.assert_close(values[VARIANCE], variance)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_convolutions(kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 5, 5, generator=generator).double()
    y = torch.arange(12) % 3
    net = nn.Sequential(nn.Conv2d(2, 4, 3), kind(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    bnn = lift(net.double(), prior=Normal(0.3), prefix="net.")

    def model(x, y=None):
        return categorical(bnn(x), y)

    training = Training(epochs=2, batch_size=4, learning_rate=0.01)
    guide = Ensemble(PointEstimate(model, training), size=3).fit(x, y, seed=0)
    for values in each(guide.sample_posterior(1)):
        own = copy.deepcopy(net)
        own[1] = nn.BatchNorm2d(4, momentum=None).double()
        state = {n.removeprefix("net."): v for n, v in values.items() if "running" not in n}
        own.load_state_dict({**own.state_dict(), **state})
        with torch.no_grad():
            for batch in x.split(4):
                own(batch)
        torch.testing.assert_close(values["net.1.running_mean"], own[1].running_mean)
        torch.testing.assert_close(values["net.1.running_var"], own[1].running_var)


def test_what_cannot_be_done_with_statistics_is_said(normed):
    density = normed.density
    with pytest.raises(UserError, match=r"'1.running_mean' joins the rows.*estimator='plain'"):
        MeanField(density, BRIEF, estimator="flipout").fit(seed=0)
    with pytest.raises(UserError, match=r"'1.running_mean' is a statistic of all rows"):
        density.chunked(5).value_and_grad(torch.zeros(1, density.dim).double())
    with pytest.raises(UserError, match=r"layer '1' \(BatchNorm1d\).*two rows or more"):
        PointEstimate(density, Training(epochs=1, batch_size=1)).fit(seed=0)
    with pytest.raises(UserError, match=r"the draws lack '1.running_mean'"):
        predict(density, density.constrain(torch.zeros(1, density.dim).double()), normed.new, None)
    with pytest.raises(UserError, match=r"'1.running_mean' follows from the weights"):
        OrbitMove(density, discover(density))
