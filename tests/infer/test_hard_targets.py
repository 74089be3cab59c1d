"""Where kernels are known to fail: modes far apart, and the neck of a funnel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyro_bnn.infer import HMC, NUTS


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Mixture:
    """Two normals of deviation one, `distance` to either side of the origin; the right has 80 %."""

    def __init__(self, distance):
        self.distance = distance

    def value_and_grad(self, position):
        first = position[:, 0]
        # The log odds of the right-hand normal.
        odds = 2 * self.distance * first + np.log(4.0)
        right = torch.sigmoid(odds)
        left_energy = 0.5 * (first + self.distance) ** 2 + 0.5 * position[:, 1:].square().sum(1)
        gradient = position.clone()
        gradient[:, 0] = first + self.distance - 2 * self.distance * right
        return left_energy - torch.nn.functional.softplus(odds), gradient


class Funnel:
    """Neal's funnel: a log scale of deviation 3 and five coordinates of that scale."""

    def value_and_grad(self, position):
        log_scale, rest = position[:, 0], position[:, 1:]
        precision = torch.exp(-log_scale)
        squares = rest.square().sum(1) * precision
        value = log_scale**2 / 18 + 0.5 * squares + 0.5 * rest.shape[1] * log_scale
        first = log_scale / 9 - 0.5 * squares + 0.5 * rest.shape[1]
        return value, torch.cat([first[:, None], rest * precision[:, None]], 1)


def test_near_modes_get_their_shares(build, draw, assert_mean):
    start = normal(16, 3)
    values, _, _ = draw(build(), Mixture(1.5), start, warmup=100, draws=120)
    right = (values[..., :1] > 0).astype(float)
    inside = 0.9331928  # of a normal around 1.5, what is above 0
    expected = 0.8 * inside + 0.2 * (1 - inside)
    assert_mean(right, expected, least_ess=100, what="share of the right mode")


def test_far_modes_keep_the_shares_of_the_starts(build_full_batch, draw):
    """Half of the chains start on either side: a half stays, though the right has 80 %."""
    start = normal(16, 3)
    start[:8, 0] -= 40
    start[8:, 0] += 40
    values, _, _ = draw(build_full_batch(), Mixture(40.0), start, warmup=60, draws=50)
    side = values[..., 0] > 0
    assert not side[:8].any()
    assert side[8:].all()


@pytest.mark.slow
def test_the_neck_of_a_funnel_is_refused(build, draw):
    """The log scale has deviation 3; a step size fit for the bulk is too large for the neck.

    What a chain proposes from there is mostly rejected, so that it is rarely entered, and left as
    rarely: the acceptance rate of the lowest tenth of the draws tells of it.
    """
    kernel = build()
    if isinstance(kernel, NUTS):
        kernel.max_tree_depth = 7
    values, infos, state = draw(kernel, Funnel(), normal(16, 6), warmup=120, draws=150)
    assert bool(state.position.isfinite().all())
    scale = values[..., 0]
    rates = np.stack([info.stats["acceptance_rate"].numpy() for info in infos], 1)
    low = scale < np.quantile(scale, 0.1)
    assert rates[low].mean() < rates[~low].mean() - 0.05
    if isinstance(kernel, HMC):
        # An eighth of the mass is below -3.45, and hardly any of the draws.
        assert (scale < -3.45).mean() < 0.06
