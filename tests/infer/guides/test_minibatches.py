"""Training that scales: augmented rows from a DataLoader, accumulation, lower precision."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide.initialization import init_to_value
from torch import nn
from torch.utils.data import TensorDataset

from pyro_bnn import Data, LogDensity, Split, UserError, logdensity
from pyro_bnn.infer.guides import Ensemble, MeanField, PointEstimate, Training
from pyro_bnn.infer.guides.seeds import generators
from pyro_bnn.nn import gaussian

SCALE = 1.5  # of the prior of the network in conftest
SGD = {"optimiser": "sgd", "learning_rate": 0.05, "schedule": "constant"}


def test_accumulated_gradients_make_the_step_of_one_large_batch(net):
    small = Training(epochs=3, batch_size=4, accumulate=3, **SGD)
    large = Training(epochs=3, batch_size=12, **SGD)
    found = Ensemble(PointEstimate(net.density, small), 2).fit(seed=0)
    expected = Ensemble(PointEstimate(net.density, large), 2).fit(seed=0)
    torch.testing.assert_close(found.state["position"], expected.state["position"])
    assert found.gradients == 3 * expected.gradients
    losses = Training(epochs=1, batch_size=16, accumulate=5, **SGD)
    assert PointEstimate(net.density, losses).fit(seed=0).gradients == 1  # one batch, one step


def test_a_transform_is_applied_to_the_rows_that_are_trained_on(net):
    doubled = LogDensity(net.model, 2 * net.x, net.y)
    training = Training(epochs=2, batch_size=8, **SGD)
    by_transform = net.density.augmented(lambda row: 2 * row)
    found = PointEstimate(by_transform, training).fit(seed=0)
    expected = PointEstimate(doubled.augmented(lambda row: row), training).fit(seed=0)
    torch.testing.assert_close(found.state["position"], expected.state["position"])
    # A full batch is augmented too.
    whole = Training(epochs=2, batch_size=None, **SGD)
    found = PointEstimate(by_transform, whole).fit(seed=0)
    expected = PointEstimate(doubled, whole).fit(seed=0)
    torch.testing.assert_close(found.state["position"], expected.state["position"])


def jitter(row):
    return row + 0.3 * torch.randn(row.shape).double()


@pytest.mark.parametrize("estimator", ["plain", pytest.param("flipout", marks=pytest.mark.slow)])
def test_augmentation_depends_on_the_member_alone(net, estimator):
    training = Training(epochs=2, batch_size=8, **SGD)
    state = torch.get_rng_state()
    guide = MeanField(net.density.augmented(jitter), training, estimator=estimator, particles=2)
    ensemble = Ensemble(guide, 3).fit(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    alone = guide.fit(seed=ensemble.seeds[2])
    torch.testing.assert_close(ensemble.state["loc"][2], alone.state["loc"][0])
    plain = MeanField(net.density, training, estimator=estimator, particles=2).fit(seed=0)
    assert not torch.allclose(ensemble.state["loc"][0], plain.state["loc"][0])


def test_loaders_fetch_the_same_rows(net):
    density = net.density.augmented(jitter)
    here = Training(epochs=1, batch_size=8, **SGD)
    there = Training(epochs=1, batch_size=8, loaders=1, **SGD)
    found = PointEstimate(density, there).fit(seed=0)
    expected = PointEstimate(density, here).fit(seed=0)
    assert torch.equal(found.state["position"], expected.state["position"])


@pytest.mark.parametrize("size", [8, None])
def test_a_start_is_tried_by_the_graph_of_augmented_steps(net, monkeypatch, size):
    """That of a large network takes long to trace."""
    traced = []
    plain = logdensity.trace_gradient

    def counted(*args, **kwargs):
        traced.append([tuple(tensor.shape) for tensor in args[1:]])
        return plain(*args, **kwargs)

    monkeypatch.setattr(logdensity, "trace_gradient", counted)
    density = LogDensity(net.model, net.x, net.y).augmented(jitter)
    PointEstimate(density, Training(epochs=2, batch_size=size, **SGD)).fit(seed=0)
    assert len(traced) == 1


def test_a_transform_has_to_keep_the_shape(net):
    density = net.density.augmented(lambda row: row[:2])
    with pytest.raises(UserError, match=r"returns \(2,\) for a row of shape \(3,\)"):
        PointEstimate(density, Training(epochs=1, batch_size=8)).fit(seed=0)


def test_a_dataset_becomes_a_split():
    x, y = torch.randn(6, 3), torch.arange(6)
    split = Split.of(TensorDataset(x, y), transform=jitter)
    assert torch.equal(split.x, x)
    assert torch.equal(split.y, y)
    data = Data(split, Split(x, y)).to("cpu")
    assert data.train.transform is jitter
    with pytest.raises(UserError, match="the data set has no rows"):
        Split.of([])


@pytest.mark.parametrize("kind", [PointEstimate, pytest.param(MeanField, marks=pytest.mark.slow)])
def test_half_precision_trains_to_about_the_same(net, kind):
    """In bfloat16, of 8 bits: the last losses agree to some per cent, and not to rounding."""
    single = LogDensity(net.float_model, net.x.float(), net.y)
    full = Training(epochs=40, batch_size=8, learning_rate=0.02)
    half = Training(epochs=40, batch_size=8, learning_rate=0.02, precision="bfloat16")
    expected, found = (kind(single, t).fit(seed=0) for t in (full, half))
    assert all(value.dtype == torch.float32 for value in found.state.values())
    energies = [single.potential(guide.sample_positions(1)[:, 0]) for guide in (expected, found)]
    start = single.potential(single.initial_position(1, torch.Generator().manual_seed(0)))
    assert energies[1] < start
    if kind is PointEstimate:
        torch.testing.assert_close(energies[1], energies[0], rtol=0.05, atol=0)
        assert not torch.equal(found.state["position"], expected.state["position"])


def test_float16_needs_a_gpu(net):
    training = Training(epochs=1, precision="float16")
    with pytest.raises(UserError, match="float16 needs a GPU: take bfloat16"):
        PointEstimate(net.density, training).fit(seed=0)
    with pytest.raises(UserError, match="precision 'half' is unknown; known are 'full', 'bfl"):
        Training(precision="half")


def test_one_cycle_rises_and_falls():
    training = Training(epochs=10, schedule="one-cycle", learning_rate=1.0)
    rates = [training.rate(share) for share in (0.0, 0.15, 0.3, 0.65, 1.0)]
    assert rates == pytest.approx([0.04, 0.52, 1.0, 0.5, 0.0], abs=1e-12)


def test_one_cycle_is_that_of_torch():
    steps = 4000
    training = Training(
        epochs=1,
        optimiser="sgd",
        learning_rate=0.1,
        momentum=0.95,
        least_momentum=0.85,
        schedule="one-cycle",
    )
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.95)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for step in range(steps - 1):
        group = optimiser.param_groups[0]
        assert training.rate(step / steps) == pytest.approx(group["lr"], abs=2e-4)
        assert training.momentum_at(step / steps) == pytest.approx(group["momentum"], abs=2e-4)
        optimiser.step()
        cycle.step()


def test_long_gradients_are_shortened_member_by_member(net):
    """As torch's `clip_grad_norm_` does for one network after another."""
    density, rate = net.density, 0.5
    sources = generators([3, 4], density.device)
    start = density.initial_position(2, sources)
    _, gradient = density.value_and_grad(start)
    slopes = gradient / density.rows
    limit = float(slopes.norm(dim=1).mean())  # between the two, so that one is left alone
    training = Training(
        epochs=1,
        batch_size=None,
        optimiser="sgd",
        momentum=0.0,
        learning_rate=rate,
        schedule="constant",
        clip_norm=limit,
    )
    for member, seed in enumerate([3, 4]):
        weights = torch.zeros_like(start[member], requires_grad=True)
        weights.grad = slopes[member].clone()
        torch.nn.utils.clip_grad_norm_([weights], limit)
        expected = start[member] - rate * weights.grad
        found = PointEstimate(density, training).fit(seed=seed).state["position"][0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_pull_of_the_prior_is_not_shortened_where_it_passes_the_gradient_by(net):
    """As torch's AdamW decays weights after `clip_grad_norm_` of a loss that has no prior."""
    limit, rate = 0.02, 0.05
    training = Training(
        epochs=20,
        batch_size=None,
        optimiser="adamw",
        learning_rate=rate,
        schedule="constant",
        clip_norm=limit,
    )
    found = PointEstimate(net.density, training).fit(seed=3).state["position"][0]
    start = net.density.initial_position(1, generators([3], net.density.device))[0]
    own = copy.deepcopy(net.net)
    nn.utils.vector_to_parameters(start, own.parameters())
    decay = 1 / (SCALE**2 * len(net.x))
    optimiser = torch.optim.AdamW(own.parameters(), lr=rate, weight_decay=decay)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(own(net.x), net.y).backward()
        nn.utils.clip_grad_norm_(own.parameters(), limit)
        optimiser.step()
    expected = nn.utils.parameters_to_vector(own.parameters()).detach()
    # Torch's adds 1e-6 to the norm that it divides by, a part in twenty thousand of the limit.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_member_whose_noise_starts_small_needs_short_gradients():
    x = torch.linspace(-1, 1, 50)
    y = x + 0.3 * torch.randn(50, generator=torch.Generator().manual_seed(0))

    def model(x, y=None):
        slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
        return gaussian(slope * x, y)

    start = init_to_value(values={"slope": torch.tensor(0.0), "noise": torch.tensor(0.01)})
    settings = {"epochs": 300, "batch_size": None, "optimiser": "sgd", "learning_rate": 0.05}
    long = PointEstimate(model, Training(**settings), init_strategy=start)
    with pytest.raises(UserError, match="the loss is not finite"):
        long.fit(x, y, seed=0)
    short = PointEstimate(model, Training(**settings, clip_norm=1.0), init_strategy=start)
    found = short.fit(x, y, seed=0).sample_posterior(1)
    slope = (x @ y) / (x @ x)
    torch.testing.assert_close(found["slope"][0, 0], slope, rtol=0.01, atol=0)
    # The mode over the logarithm of the noise s: 50 - 1 = sum / s**2 - s**2, by the prior.
    total, variance = (y - slope * x).square().sum(), found["noise"][0, 0] ** 2
    torch.testing.assert_close(total / variance - variance, torch.tensor(49.0), rtol=0.01, atol=0)


def test_the_momentum_follows_the_cycle(net):
    """Of the steps themselves: by hand, with the formula of SGD."""
    training = Training(
        epochs=5,
        batch_size=None,
        optimiser="sgd",
        learning_rate=0.5,
        momentum=0.9,
        least_momentum=0.3,
        schedule="one-cycle",
    )
    guide = PointEstimate(net.density, training).fit(seed=3)
    z = net.density.initial_position(1, generators([3], net.density.device)[0])
    velocity = torch.zeros_like(z)
    for epoch in range(5):
        _, gradient = net.density.value_and_grad(z)
        velocity = training.momentum_at(epoch / 5) * velocity + gradient / net.density.rows
        z = z - training.rate(epoch / 5) * velocity
    torch.testing.assert_close(guide.state["position"], z)
