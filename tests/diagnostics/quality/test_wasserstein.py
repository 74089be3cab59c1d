"""Sliced Wasserstein against scipy and a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from pyro_bnn.diagnostics.quality import SlicedWasserstein


def test_one_dimension_is_the_plain_distance() -> None:
    # A shifted copy: the 1- and the 2-Wasserstein distance are both the shift.
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    sliced = SlicedWasserstein.of(x, x[torch.randperm(40)] + 0.7, generator=generator)
    assert sliced.distance() == pytest.approx(0.7)
    assert sliced.distance() == pytest.approx(
        wasserstein_distance(x[:, 0].numpy(), x[:, 0].numpy() + 0.7)
    )


def test_a_shift_in_many_dimensions_shows_by_its_share() -> None:
    # Projected on a uniform direction, a shift s has the mean square |s|^2 / dim.
    dim, projections = 30, 4000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, dim, generator=generator, dtype=torch.float64)
    shift = torch.randn(dim, generator=generator, dtype=torch.float64)
    first, second = (
        SlicedWasserstein.of(x[:, part], x[:, part] + shift[part], projections, generator)
        for part in (slice(0, 7), slice(7, dim))
    )
    sliced = first + second
    expected = float(shift.square().sum() / dim)
    # The square of a projection has the relative deviation sqrt(2) at most.
    assert sliced.distance() ** 2 == pytest.approx(expected, rel=5 * np.sqrt(2 / projections))
