"""The density of a unit's orbit coordinate, against draws from the prior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from pyro_bnn.symmetry.orbit_density import orbit_cdf, orbit_log_density

UNITS = [
    (5, 2, 1.0, 1.0),
    (65, 50, 0.3, 2.0),
    (51, 10, 0.5, 0.5),
    (1, 1, 1.0, 1.0),
    (2, 7, 1.0, 1.0),
]


def prior_radii(m, n, scale_in, scale_out, draws=40_000):
    rng = np.random.default_rng(0)
    inward = scale_in * np.linalg.norm(rng.normal(size=(draws, m)), axis=1)
    outward = scale_out * np.linalg.norm(rng.normal(size=(draws, n)), axis=1)
    return np.sqrt(inward * outward)


@pytest.mark.parametrize(("m", "n", "scale_in", "scale_out"), UNITS)
def test_draws_of_the_prior_have_the_bessel_density(m, n, scale_in, scale_out):
    radii = prior_radii(m, n, scale_in, scale_out)
    scale = np.sqrt(scale_in * scale_out)
    assert stats.kstest(radii, lambda r: orbit_cdf(r, m, n, scale)).pvalue > 1e-4


@pytest.mark.parametrize(("m", "n", "scale_in", "scale_out"), UNITS)
def test_its_constant_is_that_of_the_integral(m, n, scale_in, scale_out):
    scale = np.sqrt(scale_in * scale_out)
    total, _ = integrate.quad(
        lambda r: np.exp(orbit_log_density(r, m, n, scale)), 1e-9, 12 * scale * (m * n) ** 0.25
    )
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("m", "n"), [(5, 2), (51, 10)])
def test_the_prior_restricted_to_the_slice_is_another_density(m, n, power):
    # rho ** (m + n - power) exp(-rho ** 2), of which the square is gamma: with the volume that
    # the slice has by itself (2) or as the limit of a shell of scales (1).
    def restricted(radius):
        return stats.gamma((m + n - power + 1) / 2).cdf(radius**2)

    assert stats.kstest(prior_radii(m, n, 1.0, 1.0), restricted).pvalue < 1e-6


def test_incoming_and_outgoing_may_change_places():
    radii = np.linspace(0.1, 4, 50)
    np.testing.assert_allclose(orbit_log_density(radii, 6, 3), orbit_log_density(radii, 3, 6))
