"""The prior density of where a unit's orbit lies, in closed form.

A positively homogeneous unit with ``m`` incoming weights ``a`` and ``n`` outgoing weights ``b``
moves along ``(a e^u, b e^-u)``. Its orbit meets the balanced slice ``|a|/s_in = |b|/s_out`` in one
point, whose radius ``rho = sqrt(|a| |b|)`` is a coordinate of the orbit. Under independent normal
priors of deviations ``s_in`` and ``s_out`` its density is

``p(rho) = rho^(m+n-1) K_((m-n)/2)(rho^2 / s^2) / (s^(m+n) 2^((m+n)/2 - 3) G(m/2) G(n/2))``

with ``s^2 = s_in s_out``, the modified Bessel function ``K`` and the gamma function ``G``. It is
not the prior restricted to the slice, which is ``rho^(m+n-2) exp(-rho^2 / s^2)`` in the slice's own
volume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_simpson
from scipy.special import gammaln, kve

__all__ = ["orbit_cdf", "orbit_log_density"]

GRID = 4001


def orbit_log_density(
    radius: ArrayLike, incoming: int, outgoing: int, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the log density of a unit's orbit coordinate under its prior.

    Parameters
    ----------
    radius : array_like
        ``sqrt(|a| |b|)``, positive.
    incoming, outgoing : int
        Number of weights into the unit (the bias is one) and out of it.
    scale : float
        Geometric mean of the prior deviations of the incoming and the outgoing weights.

    Returns
    -------
    ndarray
        In the shape of `radius`.

    Examples
    --------
    >>> float(np.round(np.exp(orbit_log_density(2.0, 5, 2)), 4))
    0.4884
    """
    rho = np.asarray(radius, dtype=np.float64)
    total, order = incoming + outgoing, (incoming - outgoing) / 2
    argument = (rho / scale) ** 2
    log_bessel = np.log(kve(order, argument)) - argument
    log_norm = total * np.log(scale) + (total / 2 - 3) * np.log(2)
    log_norm += gammaln(incoming / 2) + gammaln(outgoing / 2)
    result: NDArray[np.float64] = (total - 1) * np.log(rho) + log_bessel - log_norm
    return result


def orbit_cdf(
    radius: ArrayLike, incoming: int, outgoing: int, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the distribution function of a unit's orbit coordinate under its prior.

    The density is integrated on a grid of radii and normalised there, its constant unused.

    Parameters
    ----------
    radius, incoming, outgoing, scale
        As in `orbit_log_density`.
    """
    # Twice the norms that the two chi variables rarely exceed.
    bounds = [np.sqrt(count) + 6 for count in (incoming, outgoing)]
    largest = scale * np.sqrt(bounds[0] * bounds[1])
    grid = np.linspace(largest / GRID, largest, GRID)
    level = orbit_log_density(grid, incoming, outgoing, scale)
    mass = cumulative_simpson(np.exp(level - level.max()), x=grid, initial=0.0)
    found: NDArray[np.float64] = np.interp(
        np.asarray(radius, dtype=np.float64), grid, mass / mass[-1]
    )
    return found
