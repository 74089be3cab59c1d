"""Simulation-based calibration on a small network (Talts et al. 2018).

Parameters drawn from the prior, data drawn from them: among draws of the posterior given the data
the rank of the truth is uniform. Every data set is a chain of one batch, so that a run of the
kernel calibrates it on hundreds of posteriors at once.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch.func import grad_and_value, vmap

from pyro_bnn.infer import NUTS

REPLICATES, WARMUP, KEPT, APART, BINS = 400, 200, 31, 8, 16
HIDDEN = 3
DIM = 3 * HIDDEN + 2
X = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64)
QUERIES = torch.tensor([-2.0, 0.1, 0.9], dtype=torch.float64)


def network(weights, x):
    """Compute a 1-3-1 tanh network: ``(DIM,)`` and ``(rows,)`` to ``(rows,)``."""
    slope, offset, out = weights[: 3 * HIDDEN].reshape(3, HIDDEN)
    return torch.tanh(x[:, None] * slope + offset) @ out + weights[-2]


def potential(weights, y):
    """Negative log joint: standard normal weights, log-normal noise."""
    log_noise = weights[-1]
    noise = (0.4 * log_noise - 1).exp()
    errors = (y - network(weights, X)) / noise
    return 0.5 * weights.square().sum() + 0.5 * errors.square().sum() + len(X) * noise.log()


class Replicates:
    """Data sets ``(chain, rows)``, one a chain."""

    def __init__(self, y):
        self.y = y
        self._gradient = vmap(grad_and_value(potential))

    def value_and_grad(self, position):
        gradient, value = self._gradient(position, self.y)
        return value, gradient


def statistics(weights, y):
    """Predictions, noise and the log joint, none of which knows the order of hidden units."""
    predictions = network(weights, QUERIES)
    return torch.cat([predictions, weights[-1:], potential(weights, y)[None]])


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform(build, draw):
    source = torch.Generator().manual_seed(0)
    truth = torch.randn(REPLICATES, DIM, generator=source, dtype=torch.float64)
    noise = torch.randn(REPLICATES, len(X), generator=source, dtype=torch.float64)
    clean = vmap(network, in_dims=(0, None))(truth, X)
    y = clean + (0.4 * truth[:, -1:] - 1).exp() * noise
    # The chains start elsewhere, as any run does.
    start = torch.randn(REPLICATES, DIM, generator=source, dtype=torch.float64)
    kernel = build()
    if isinstance(kernel, NUTS):
        # The batch waits for its longest tree, and one of hundreds is always long.
        kernel.max_tree_depth = 6
    values, _, _ = draw(kernel, Replicates(y), start, warmup=WARMUP, draws=KEPT * APART)
    kept = torch.from_numpy(values[:, APART - 1 :: APART])
    drawn = vmap(vmap(statistics, in_dims=(0, None)))(kept, y).numpy()
    true = vmap(statistics)(truth, y).numpy()

    # Neighbours among the kept draws are all but independent, so that ranks are uniform.
    centred = drawn - drawn.mean(1, keepdims=True)
    lagged = (centred[:, 1:] * centred[:, :-1]).mean((0, 1)) / centred.var((0, 1))
    assert np.abs(lagged).max() < 0.25, lagged
    for statistic in range(true.shape[1]):
        assert uniformity(drawn[..., statistic], true[:, statistic]) > 1e-4, statistic
    # Draws that are off by half a deviation would not pass.
    biased = drawn[..., 0] + 0.5 * drawn[..., 0].std(1, keepdims=True)
    assert uniformity(biased, true[:, 0]) < 1e-4


def uniformity(drawn, true):
    """P-value of uniform ranks of ``(chain,)`` among ``(chain, draw)``."""
    ranks = (drawn < true[:, None]).sum(1)
    counts = np.bincount(ranks * BINS // (KEPT + 1), minlength=BINS)
    return scipy.stats.chisquare(counts).pvalue
