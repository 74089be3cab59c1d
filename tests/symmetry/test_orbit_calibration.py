"""Simulation-based calibration: parameters from the prior rank uniformly among posterior draws.

Each replicate draws weights from the prior and data given them, so that the weights are a draw
from the posterior of these data. A stationary, reversible chain runs from them forwards and
backwards in time, such that the true weights stand at a random place of it; then their rank among
all states is uniform (Talts et al. 2018; Gandy and Scott 2020). The kernel is a Metropolis step
between two orbit moves; these are reversible, as there is one layer of scales and no softmax.
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from pyro_bnn.logdensity import LogDensity
from pyro_bnn.symmetry import OrbitMove, discover

INPUTS, UNITS, OUTPUTS, ROWS = 2, 4, 3, 8
SCALES = {"w1": 1.5, "b1": 1.0, "w2": 0.8}
SHAPES = {"w1": (INPUTS, UNITS), "b1": (UNITS,), "w2": (UNITS, OUTPUTS)}
STATES = 8
LEVEL = 1e-4


def model(x, y):
    zeros = {site: torch.zeros(shape, dtype=torch.float64) for site, shape in SHAPES.items()}
    w1 = pyro.sample("w1", dist.Normal(zeros["w1"], SCALES["w1"]).to_event(2))
    b1 = pyro.sample("b1", dist.Normal(zeros["b1"], SCALES["b1"]).to_event(1))
    w2 = pyro.sample("w2", dist.Normal(zeros["w2"], SCALES["w2"]).to_event(2))
    with pyro.plate("data", len(x)):
        logits = torch.relu(x @ w1 + b1) @ w2
        pyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=y)


class Replicates:
    """Many data sets at once, each with its own weights; the orbit move sees none of the data."""

    def __init__(self, count):
        self.generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS, INPUTS, generator=self.generator, dtype=torch.float64)
        self.density = LogDensity(model, self.x, torch.eye(ROWS, OUTPUTS))
        self.move = OrbitMove(self.density, discover(self.density))
        parts = [
            SCALES[name] * torch.randn(count, *shape, generator=self.generator, dtype=torch.float64)
            for name, shape in SHAPES.items()
        ]
        self.truth = torch.cat([part.flatten(1) for part in parts], 1)
        self.labels = torch.bernoulli(self.logits(self.truth).sigmoid(), generator=self.generator)

    def logits(self, position):
        w = self.density.unflatten(position)
        return torch.relu(self.x @ w["w1"] + w["b1"][:, None]) @ w["w2"]

    def log_likelihood(self, position):
        logits = self.logits(position)
        return (self.labels * logits - torch.nn.functional.softplus(logits)).sum((1, 2))

    def metropolis(self, position):
        """Propose weights that leave the prior invariant, accept by the likelihood."""
        scale = self.density.flatten(
            {n: torch.full((1, *s), SCALES[n], dtype=torch.float64) for n, s in SHAPES.items()}
        )
        noise = torch.randn(position.shape, generator=self.generator, dtype=torch.float64)
        proposal = 0.8 * position + 0.6 * scale * noise
        rise = self.log_likelihood(proposal) - self.log_likelihood(position)
        uniform = torch.rand(len(position), generator=self.generator, dtype=torch.float64)
        return torch.where((uniform.log() < rise)[:, None], proposal, position)

    def step(self, position):
        moved = self.move(position, self.generator)
        return self.move(self.metropolis(moved), self.generator)

    def summaries(self, position):
        w = self.density.unflatten(position)
        # Where the proposal is rejected the likelihood stays: the tie is broken by chance.
        chance = torch.rand(len(position), generator=self.generator, dtype=torch.float64)
        inward = w["w1"][:, :, 0].square().sum(1) + w["b1"][:, 0].square()
        outward = w["w2"][:, 0].square().sum(1)
        return torch.stack(
            [
                self.log_likelihood(position) + 1e-6 * chance,
                inward,
                outward,
                inward / outward,
                w["w1"][:, 0, 1],
                w["w2"][:, 0, 0],
                w["w2"].mean((1, 2)),
            ]
        )

    def ranks(self):
        """Rank of the truth among the states of its chain, ``(summary, replicate)``."""
        truth = self.summaries(self.truth)
        place = torch.randint(STATES, (len(self.truth),), generator=self.generator)
        rank = torch.zeros_like(truth)
        for behind in (True, False):
            position = self.truth
            for k in range(1, STATES):
                position = self.step(position)
                within = place >= k if behind else place + k < STATES
                rank += (self.summaries(position) < truth) & within
        return rank.long().numpy()


def smallest_pvalue(ranks):
    counts = [np.bincount(row, minlength=STATES) for row in ranks]
    return min(stats.chisquare(row).pvalue for row in counts)


@pytest.mark.parametrize(
    "count", [2000, pytest.param(40_000, marks=pytest.mark.slow)], ids=["quick", "long"]
)
def test_ranks_are_uniform(count):
    assert smallest_pvalue(Replicates(count).ranks()) > LEVEL


@pytest.mark.parametrize("fault", ["volume", "prior"])
def test_ranks_show_a_faulty_move(fault):
    replicates = Replicates(2000)
    move = replicates.move
    if fault == "volume":
        move._counts = {name: count + 1 for name, count in move._counts.items()}
    else:
        amplitude = move._amplitude
        move._amplitude = lambda site, *rest: (1.2 if site == "w2" else 1) * amplitude(site, *rest)
    assert smallest_pvalue(replicates.ranks()) < LEVEL
