"""The training core: optimisers against torch's own loop, schedules, failures, resumption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyro_bnn import UserError
from pyro_bnn.infer.guides import Ensemble, FullRank, PointEstimate, Training
from pyro_bnn.infer.guides.descent import Descent
from pyro_bnn.infer.guides.failure import judge
from pyro_bnn.infer.guides.seeds import generators, member_seeds

SCALE = 1.5  # of the prior of the network in conftest


def by_torch(net, start, order, training):
    """Train the network of the fixture by a plain loop of torch; return the flat weights."""
    copy = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    nn.utils.vector_to_parameters(start, copy.parameters())
    decay = 1 / (SCALE**2 * len(net.x))
    kinds = {
        "sgd": lambda p: torch.optim.SGD(
            p, lr=training.learning_rate, momentum=0.9, nesterov=True, weight_decay=decay
        ),
        "adam": lambda p: torch.optim.Adam(p, lr=training.learning_rate, weight_decay=decay),
        "adamw": lambda p: torch.optim.AdamW(p, lr=training.learning_rate, weight_decay=decay),
    }
    optimiser = kinds[training.optimiser](copy.parameters())
    for epoch in range(training.epochs):
        for number in range(3):
            share = (epoch + number / 3) / training.epochs
            optimiser.param_groups[0]["lr"] = training.rate(share)
            rows = order[epoch][8 * number : 8 * (number + 1)]
            optimiser.zero_grad()
            nn.functional.cross_entropy(copy(net.x[rows]), net.y[rows]).backward()
            optimiser.step()
    return nn.utils.parameters_to_vector(copy.parameters()).detach()


@pytest.mark.parametrize(
    ("optimiser", "schedule"), [("sgd", "step"), ("adam", "cosine"), ("adamw", "constant")]
)
def test_stacked_members_follow_torchs_own_loop(net, optimiser, schedule):
    training = Training(
        epochs=6,
        batch_size=8,
        optimiser=optimiser,
        learning_rate=0.05,
        nesterov=optimiser == "sgd",
        schedule=schedule,
    )
    ensemble = Ensemble(PointEstimate(net.density, training), size=3)
    ensemble.fit(seed=5)
    for seed, found in zip(ensemble.seeds, ensemble.state["position"], strict=True):
        source = torch.Generator().manual_seed(seed)
        start = net.density.initial_position(1, source)[0]
        order = [torch.randperm(24, generator=source) for _ in range(training.epochs)]
        expected = by_torch(net, start, order, training)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_rows_that_fill_no_batch_are_left_out_of_an_epoch(line):
    seen = []

    class Watched(PointEstimate):
        def gradient(self, parameters, density, indices, sources):
            seen.append(indices)
            return super().gradient(parameters, density, indices, sources)

    Watched(line.density, Training(epochs=2, batch_size=15)).fit(seed=0)
    assert [tuple(indices.shape) for indices in seen] == [(1, 15)] * 4
    first, second = (torch.cat(seen[i : i + 2], 1)[0] for i in (0, 2))
    assert len(first.unique()) == len(second.unique()) == 30
    assert not torch.equal(first, second)


def test_the_mode_of_a_regression_is_the_posterior_mean(line):
    training = Training(epochs=400, batch_size=None, learning_rate=0.1)
    guide = PointEstimate(line.density, training).fit(seed=0)
    draws = guide.sample_posterior(2)["w"]
    assert draws.shape == (1, 2, 3)
    torch.testing.assert_close(draws[0, 1], line.mean, rtol=1e-6, atol=0)


def test_seeds_do_not_overlap_and_do_not_depend_on_the_size():
    assert member_seeds(3, 5)[:2] == member_seeds(3, 2)
    assert member_seeds(3, 1) == [3]
    many = [*member_seeds(3, 100), *member_seeds(4, 100), *member_seeds(3, 100, attempt=1)]
    assert len(set(many)) == 300


# Failures


def test_each_rule_of_failure():
    losses = torch.tensor([[2.0, 1.0], [2.0, math.nan], [2.0, 3.5], [2.0, 1.9], [2.0, 1.0]])
    finite = torch.tensor([True, True, True, True, False])
    found = judge(losses, finite, 1.5)
    assert found[0] is None
    assert [(v[0], v[1].split(" a row")[0]) for v in found[1:] if v] == [
        (2, "the loss is not finite"),
        (2, "the loss rose from 2 to 3.5"),
        (2, "the loss is 1.9"),
        (2, "a parameter is not finite"),
    ]


class Fragile(PointEstimate):
    """Fails where its start says so: every second member of seed 0."""

    def gradient(self, parameters, density, indices, sources):
        value, gradients = super().gradient(parameters, density, indices, sources)
        bad = torch.tensor([source.initial_seed() % 2 == 1 for source in sources])
        return value.where(~bad, torch.nan), gradients


def test_members_that_fail_are_recorded_and_left_out(line):
    training = Training(epochs=3, batch_size=None)
    ensemble = Ensemble(Fragile(line.density, training), size=8).fit(seed=0)
    odd = [member for member, seed in enumerate(member_seeds(0, 8)) if seed % 2]
    assert 0 < len(odd) < 8
    assert [failure.member for failure in ensemble.failures] == odd
    assert ensemble.members == [member for member in range(8) if member not in odd]
    assert ensemble.state["position"].shape[0] == 8 - len(odd)
    assert "the loss is not finite" in str(ensemble.failures[0])
    assert f"member {odd[0]} (seed {member_seeds(0, 8)[odd[0]]}), epoch 1" in str(
        ensemble.failures[0]
    )


def test_members_that_fail_are_tried_again(line):
    training = Training(epochs=3, batch_size=None)
    guide = Fragile(line.density, training)
    ensemble = Ensemble(guide, size=8, retries=20, block=3).fit(seed=0)
    assert ensemble.members == list(range(8))
    assert all(seed % 2 == 0 for seed in ensemble.seeds)
    assert ensemble.failures
    alone = PointEstimate(line.density, training).fit(seed=ensemble.seeds[5])
    torch.testing.assert_close(ensemble.state["position"][5], alone.state["position"][0])


def test_no_member_left_is_an_error(line):
    guide = PointEstimate(line.density, Training(epochs=2, batch_size=None), fail_above=-1e9)
    with pytest.raises(UserError, match="all 1 members failed to converge; the first: member 0"):
        guide.fit(seed=0)


# Resumption


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("optimiser", "dies_at"), [("sgd", 3), ("adam", 7)])
def test_a_killed_training_goes_on_bit_for_bit(net, tmp_path, monkeypatch, optimiser, dies_at):
    training = Training(epochs=5, batch_size=8, optimiser=optimiser, learning_rate=0.03)
    ensemble = Ensemble(PointEstimate(net.density, training), size=5, block=3)
    whole = ensemble.fit(seed=2).state
    advance, epochs = Descent.advance, []

    def fragile(self):
        epochs.append(1)
        if len(epochs) > dies_at:
            raise Killed
        advance(self)

    monkeypatch.setattr(Descent, "advance", fragile)
    with pytest.raises(Killed):
        ensemble.fit(seed=2, run_dir=tmp_path, save_every=1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="already holds a run"):
        ensemble.fit(seed=2, run_dir=tmp_path)
    with pytest.raises(UserError, match="started with seed 2, not 3"):
        ensemble.fit(seed=3, run_dir=tmp_path, resume=True)
    again = ensemble.fit(seed=2, run_dir=tmp_path, resume=True)
    assert torch.equal(again.state["position"], whole["position"])
    assert again.gradients == 5 * 5 * 3
    # Finished: nothing is trained again.
    monkeypatch.setattr(Descent, "advance", None)
    ensemble.fit(run_dir=tmp_path, resume=True)


def test_blocks_are_sized_by_what_a_member_keeps(line, monkeypatch):
    sizes = []

    class Counted(FullRank):
        def train(self, density, sources, resume, save):
            sizes.append(len(sources))
            return super().train(density, sources, resume, save)

    # Room for two members of 3 + 3 + 9 float64 numbers, and what passes between operators.
    monkeypatch.setattr("pyro_bnn.infer.guides.batching._BLOCK_BYTES", 2 * 10 * 8 * 15)
    guide = Counted(line.density, Training(epochs=2, batch_size=None))
    Ensemble(guide, size=5).fit(seed=0)
    assert sizes == [2, 2, 1]
    Ensemble(guide, size=3, block=3).fit(seed=0)
    assert sizes[3:] == [3]


def test_members_have_streams_of_their_own():
    first, second = generators([1, 2], torch.device("cpu"))
    assert torch.rand((), generator=first) != torch.rand((), generator=second)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"optimiser": "lbfgs"}, ["'lbfgs' is unknown", "'sgd', 'adam', 'adamw'"]),
        (
            {"schedule": "linear"},
            ["'linear' is unknown", "'constant', 'step', 'cosine', 'one-cycle'"],
        ),
        ({"epochs": 0}, ["epochs is 0"]),
        ({"batch_size": 0}, ["batch_size is 0"]),
        ({"learning_rate": 0.0}, ["learning_rate is 0.0"]),
        ({"clip_norm": 0.0}, ["clip_norm is 0.0"]),
        ({"momentum": 1.0}, ["momentum is 1.0"]),
        ({"nesterov": True}, ["'sgd' with a momentum"]),
        ({"least_momentum": 0.8}, ["'sgd' and the schedule 'one-cycle'"]),
        (
            {"optimiser": "sgd", "schedule": "one-cycle", "least_momentum": 0.95},
            ["least_momentum is 0.95", "at most the momentum, 0.9"],
        ),
    ],
)
def test_settings_that_cannot_be_are_named(settings, parts):
    with pytest.raises(UserError) as caught:
        Training(**settings)
    for part in parts:
        assert part in str(caught.value)
