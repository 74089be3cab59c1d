"""The ChEES criterion against its definition, and the numbers of steps that it leads to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyro_bnn import UserError
from pyro_bnn.infer import AdjustedMCLMC, ChEES
from pyro_bnn.infer.adaptation.trajectory_length import LengthAscent, chees_slope
from pyro_bnn.infer.kernels.hamiltonian import Trajectory, metric_from_variance
from pyro_bnn.infer.kernels.trajectory import van_der_corput


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_halton_fills_the_interval():
    points = [van_der_corput(index) for index in range(1, 256)]
    assert sorted(points) == [k / 256 for k in range(1, 256)]
    # Every stretch of it is even: of any 16 in a row one lies in each sixteenth.
    for start in range(0, 200, 16):
        if start:
            cells = {int(16 * van_der_corput(start + i)) for i in range(16)}
            assert cells == set(range(16))


@pytest.mark.parametrize("dense", [False, True])
def test_slope_is_the_derivative_of_the_criterion(dense):
    """On a harmonic trajectory, with the length as the thing to differentiate by."""
    matrix = normal(3, 3, seed=3)
    variance = matrix @ matrix.mT + torch.eye(3) if dense else torch.tensor([0.5, 2.0, 1.0])
    metric = metric_from_variance(variance.double())
    start, velocity, centre = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    rates = torch.tensor([1.0, 0.5, 0.2, 0.9, 1.0, 0.7]).double()

    def where(log_length):
        time = log_length.exp()
        return start * time.cos() + velocity * time.sin()

    def criterion(log_length):
        end, begin = (metric.whiten(q - centre) for q in (where(log_length), start))
        change = end.square().sum(1) - begin.square().sum(1)
        return (rates * change**2).sum() / rates.sum() / 4

    log_length = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(criterion(log_length), log_length)
    time = log_length.detach().exp()
    trajectory = Trajectory(
        start,
        where(log_length.detach()),
        velocity * time.cos() - start * time.sin(),
        time.expand(6),
    )
    slope = chees_slope(trajectory, centre, metric, rates)
    torch.testing.assert_close(slope, expected)
    # A chain that diverged has no say, whatever it carries.
    broken = trajectory._replace(end=trajectory.end.index_fill(0, torch.tensor([2]), torch.nan))
    without = chees_slope(broken, centre, metric, rates.index_fill(0, torch.tensor([2]), 0.0))
    few = [0, 1, 3, 4, 5]
    alone = chees_slope(Trajectory(*(t[few] for t in trajectory)), centre[few], metric, rates[few])
    torch.testing.assert_close(without, alone)
    dead = chees_slope(trajectory, centre, metric, torch.full((6,), torch.nan).double())
    assert float(dead) == 0


def test_ascent_finds_the_top_of_a_noisy_hill():
    ascent = LengthAscent.begin(torch.tensor(10.0).double())
    noise = np.random.default_rng(0)
    for _ in range(400):
        slope = math.log(40) - float(ascent.log_steps) + 0.3 * noise.normal()
        ascent = ascent.climb(torch.tensor(slope).double())
    assert float(ascent.log_averaged.exp()) == pytest.approx(40, rel=0.1)
    # Never less than a step.
    for _ in range(400):
        ascent = ascent.climb(torch.tensor(-1.0).double())
    assert float(ascent.log_steps) == 0


@pytest.mark.parametrize(
    ("kernel", "pace", "least"),
    [(ChEES, 1.0, 0.55), (AdjustedMCLMC, 30**0.5, 1.0)],
    ids=["ChEES", "AdjustedMCLMC"],
)
def test_the_length_on_a_normal_is_of_the_order_of_its_period(draw, targets, kernel, pace, least):
    """In a standard normal the square changes most after a quarter of a period, pi / 2.

    With lengths spread over (0, 2 T) the criterion is largest where tan(4 T) = 4 T, first at 1.12.
    The ascent is noisy and may end at a later maximum: over twenty seeds the median was 1.5
    (ChEES) and 2.6, and the standard deviation of the logarithm 0.5. The bounds lie five and
    more of those of a median of nine away.
    """
    gaussian, _ = targets
    modes = 1000.0 * normal(16, 30, seed=5).sign()

    class Modes(gaussian):
        def value_and_grad(self, position):
            return super().value_and_grad(position - modes)

    target, start = Modes(torch.eye(30)), modes + normal(16, 30)
    lengths = []
    for seed in range(9):
        _, _, state = draw(kernel(None), target, start, warmup=300, draws=1, seed=seed)
        lengths.append(float(state.mean_steps * state.step_size) / pace)
    assert least < np.median(lengths) < 3 * math.pi


def test_lengths_are_as_given_when_they_are_not_adapted(draw, targets):
    gaussian, _ = targets
    kernel = ChEES(None, num_steps=7.0, adapt_num_steps=False)
    _, infos, state = draw(kernel, gaussian(torch.eye(2)), normal(4, 2), warmup=30, draws=64)
    assert float(state.mean_steps) == 7
    assert int(state.draws) == 94
    steps = [info.gradients for info in infos]
    assert np.mean(steps) == pytest.approx(7, abs=0.3)
    assert set(steps) >= set(range(1, 14))


def test_chees_wants_company_and_isokinetic_motion_room(targets):
    gaussian, _ = targets
    with pytest.raises(UserError, match="num_chains of at least 2"):
        ChEES(None).init(normal(1, 2), gaussian(torch.eye(2)), torch.Generator())
    with pytest.raises(UserError, match=r"AdjustedMCLMC moves at unit speed.*use HMC"):
        AdjustedMCLMC(None).init(normal(4, 1), gaussian(torch.eye(1)), torch.Generator())
    for kernel in (ChEES, AdjustedMCLMC):
        with pytest.raises(UserError, match="num_steps is 0"):
            kernel(None, num_steps=0)
