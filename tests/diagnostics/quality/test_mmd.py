"""MMD against plain loops, its bias, its level and its power."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr

from pyro_bnn.diagnostics.quality import Distances, bandwidth_grid, mmd
from pyro_bnn.diagnostics.quality.mmd import FEWEST


def samples(
    n: int, m: int, dim: int, shift: float = 0.0, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    y = torch.randn(m, dim, generator=generator, dtype=torch.float64) + shift
    return x, y


def naive(x: torch.Tensor, y: torch.Tensor, kind: str, h: float) -> float:
    """Sum the kernel over all pairs, one pair at a time."""

    def kernel(a: list[float], b: list[float]) -> float:
        if kind == "laplace":
            return math.exp(-math.fsum(abs(i - j) for i, j in zip(a, b, strict=True)) / h)
        return math.exp(-math.fsum((i - j) ** 2 for i, j in zip(a, b, strict=True)) / h**2)

    first, second = x.tolist(), y.tolist()
    n, m = len(first), len(second)
    xx = math.fsum(kernel(first[i], first[j]) for i in range(n) for j in range(n) if i != j)
    yy = math.fsum(kernel(second[i], second[j]) for i in range(m) for j in range(m) if i != j)
    xy = math.fsum(kernel(a, b) for a in first for b in second)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_every_kernel_equals_the_naive_sum(offset: float) -> None:
    x, y = samples(23, 31, 5, 0.3)
    x, y = x + offset, y + offset
    found = mmd(Distances.of(x, y), permutations=0, resamples=0)
    assert [kind for kind, _ in found.kernels] == ["laplace"] * 10 + ["gaussian"] * 10
    for (kind, h), value in zip(found.kernels, found.values, strict=True):
        assert value == pytest.approx(naive(x, y, kind, h), rel=0, abs=1e-10)
    assert found.value == pytest.approx(np.mean(found.values))
    assert math.isnan(found.p_value)
    assert all(math.isnan(end) for end in found.interval)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 40), (40, 7), (8, 8)])
def test_few_draws_have_no_interval(n: int, m: int) -> None:
    found = mmd(Distances.of(*samples(n, m, 3)), permutations=0)
    low, high = found.interval
    if min(n, m) < FEWEST:
        assert math.isnan(low)
        assert math.isnan(high)
    else:
        assert low < high


def test_distances_add_up_over_layers() -> None:
    x, y = samples(12, 9, 7)
    whole = Distances.of(x, y)
    parts = Distances.of(x[:, :3], y[:, :3]) + Distances.of(x[:, 3:], y[:, 3:])
    torch.testing.assert_close(parts.l1, whole.l1)
    torch.testing.assert_close(parts.squared, whole.squared)
    torch.testing.assert_close(whole.squared.sqrt(), torch.cdist(*[torch.cat([x, y])] * 2))


def test_grid_runs_from_half_the_smallest_to_twice_the_largest_distance() -> None:
    x, y = samples(20, 20, 50)
    pairs = Distances.of(x, y).l1
    upper = pairs[tuple(torch.triu_indices(40, 40, 1))]
    grid = bandwidth_grid(pairs)
    assert float(grid[0]) == pytest.approx(float(upper.min()) / 2)
    assert float(grid[-1]) == pytest.approx(float(upper.max()) * 2)
    ratios = grid[1:] / grid[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(9))


def test_the_unit_of_the_weights_does_not_matter() -> None:
    x, y = samples(15, 15, 4, 1.0)
    x[3] = x[5]  # a repeated draw, as a rejected proposal leaves it
    a, b = (
        mmd(Distances.of(s * x, s * y), 99, 0, torch.Generator().manual_seed(0)) for s in (1, 1e-4)
    )
    assert a.values == pytest.approx(b.values, rel=1e-8)
    assert a.p_value == b.p_value


def test_unbiased_and_of_the_stated_level_under_the_null() -> None:
    repeats, level = 300, 0.05
    values, p_values = [], []
    for seed in range(repeats):
        found = mmd(
            Distances.of(*samples(20, 30, 3, seed=seed)),
            permutations=99,
            resamples=0,
            generator=torch.Generator().manual_seed(seed),
        )
        values.append(found.values)
        p_values.append(found.p_value)
    numbers = np.array(values)
    error = numbers.std(axis=0, ddof=1) / np.sqrt(repeats)
    # The bandwidths of neighbouring kernels make 20 correlated means; 4.5 errors for the worst.
    assert np.all(np.abs(numbers.mean(axis=0)) < 4.5 * error)
    rejected = np.mean(np.array(p_values) <= level)
    assert abs(rejected - level) < 4.5 * np.sqrt(level * (1 - level) / repeats)


def test_power_rises_with_sample_size() -> None:
    repeats = 40
    power = []
    for n in (10, 40, 120):
        p_values = [
            mmd(
                Distances.of(*samples(n, n, 2, 0.35, seed=seed)),
                permutations=99,
                resamples=0,
                generator=torch.Generator().manual_seed(seed),
            ).p_value
            for seed in range(repeats)
        ]
        power.append(np.mean(np.array(p_values) <= 0.05))
    assert power[0] < power[1] < power[2]
    assert power[2] > 0.8


def expected_kernel(kind: str, h: float, shift: float) -> float:
    """Return the mean of a kernel of one dimension over differences of law N(shift, 2)."""
    if kind == "gaussian":
        return math.sqrt(h**2 / (h**2 + 4)) * math.exp(-(shift**2) / (h**2 + 4))
    scale = math.sqrt(2)
    tails = [
        1 / h**2 - side * shift / h + log_ndtr(side * shift / scale - scale / h) for side in (1, -1)
    ]
    return math.exp(np.logaddexp(*tails))


def test_interval_holds_the_exact_distance() -> None:
    # Both kernels factor over the dimensions.
    dim, shift, repeats = 2, 1.0, 100
    inside = 0
    for seed in range(repeats):
        found = mmd(
            Distances.of(*samples(80, 80, dim, shift, seed)),
            permutations=0,
            resamples=200,
            generator=torch.Generator().manual_seed(seed),
        )
        exact = np.mean(
            [
                2 * (expected_kernel(kind, h, 0) ** dim - expected_kernel(kind, h, shift) ** dim)
                for kind, h in found.kernels
            ]
        )
        inside += found.interval[0] <= exact <= found.interval[1]
    assert abs(inside / repeats - 0.95) < 5 * np.sqrt(0.95 * 0.05 / repeats)


def test_one_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="two draws of each"):
        mmd(Distances.of(torch.zeros(1, 2), torch.zeros(5, 2)))


def test_equal_draws_have_no_distance() -> None:
    x = torch.ones(6, 3)
    found = mmd(Distances.of(x, x), generator=torch.Generator().manual_seed(0))
    assert found.value == 0
    assert found.p_value == 1
