"""SWAG's mean and covariance against a recomputation from the iterates."""

from __future__ import annotations

import pytest
import torch

from pyro_bnn import UserError
from pyro_bnn.infer.guides import SWAG, Ensemble, Training


class Recording(SWAG):
    """Keeps every iterate that it collects."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.iterates, self.rates = [], []

    def rate(self, epoch):
        self.rates.append(super().rate(epoch))
        return self.rates[-1]

    def collect(self, memory, parameters, epoch):
        if epoch > self.training.epochs:
            self.iterates.append(parameters["position"].double().clone())
        return super().collect(memory, parameters, epoch)


def recorded(density, rank, collect_epochs=7):
    training = Training(epochs=4, batch_size=8, optimiser="sgd", learning_rate=0.05)
    guide = Recording(
        density, training, collect_epochs=collect_epochs, collect_rate=0.02, rank=rank, scale=0.7
    )
    return guide.fit(seed=1)


@pytest.mark.parametrize("rank", [0, 3, 7])
def test_the_covariance_is_that_of_the_iterates(net, rank):
    guide = recorded(net.density, rank)
    iterates = torch.cat(guide.iterates)
    assert iterates.shape == (7, net.density.dim)
    mean = iterates.mean(0)
    expected = iterates.var(0, correction=0).diag() * (0.5 if rank else 1.0)
    if rank:
        running = torch.stack([iterates[: i + 1].mean(0) for i in range(7)])
        columns = (iterates - running)[7 - rank :]
        expected += columns.T @ columns / (2 * (rank - 1))
    state = guide.state
    found = state["deviation"][0].square().diag() + state["factor"][0].T @ state["factor"][0]
    torch.testing.assert_close(state["mean"][0], mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, 0.7 * expected, rtol=1e-9, atol=1e-15)
    # What it draws from is what it says: 5 standard errors of 4,000 independent draws.
    drawn = guide.sample_positions(4000, torch.Generator().manual_seed(0))[0]
    centred = drawn - mean
    variance = (0.7 * expected).diagonal()
    outer = centred.T @ centred / 4000
    error = ((variance[:, None] * variance + (0.7 * expected) ** 2) / 4000).sqrt()
    assert ((outer - 0.7 * expected).abs() < 5 * error + 1e-14).all()


def test_the_rate_is_constant_while_iterates_are_collected(net):
    guide = recorded(net.density, 2)
    assert guide.rates[:1] == [0.05]
    assert guide.rates[-21:] == [0.02] * 21
    assert len(guide.rates) == 33


def test_members_of_multi_swag_are_those_trained_alone(net):
    training = Training(epochs=3, batch_size=8, optimiser="sgd", learning_rate=0.05)
    guide = SWAG(net.density, training, collect_epochs=4, rank=2)
    ensemble = Ensemble(guide, size=3).fit(seed=4)
    alone = SWAG(net.density, training, collect_epochs=4, rank=2).fit(seed=ensemble.seeds[2])
    for name, value in alone.state.items():
        torch.testing.assert_close(ensemble.state[name][2], value[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"collect_epochs": 1, "rank": 0}, "collect_epochs is 1"),
        ({"rank": 1}, "rank is 1"),
        ({"rank": 41}, r"rank is 41, give 0 or 2 to collect_epochs \(40\)"),
        ({"scale": 0.0}, "have to be positive"),
    ],
)
def test_settings_that_cannot_be_are_named(net, settings, part):
    with pytest.raises(UserError, match=part):
        SWAG(net.density, **settings)
