"""The section on the sampler and its cost."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import ABSENT, duration, number
from pyro_bnn.diagnostics.report.pieces import Picture, over, picture, stat, whole


def sampler_rows(found: Diagnosis) -> list[tuple[str, str]]:
    """List cost and sampler statistics, as name and value."""
    sampler = found.sampler
    function = found.convergence.get("function")
    ess = math.nan if function is None else over(np.median, function.ess_bulk)
    rows = [
        ("Warm-up", duration(sampler.seconds_warmup)),
        ("Sampling", duration(sampler.seconds_sampling)),
        ("Gradient evaluations, all chains", whole(sampler.gradients)),
        ("Leapfrog steps a draw, mean", number(sampler.steps)),
        ("Step size, mean", number(sampler.step_size)),
        ("Deepest tree", whole(sampler.tree_depth)),
        (
            "Acceptance rate, mean",
            ABSENT if sampler.acceptance is None else number(float(sampler.acceptance.mean())),
        ),
        (
            "Divergent transitions",
            ABSENT if sampler.divergences is None else f"{int(sampler.divergences.sum()):,}",
        ),
        ("Draws with NaN or infinity", f"{sampler.nonfinite:,}"),
        (
            "Function-space ESS a second, median",
            number(ess / sampler.seconds) if sampler.seconds > 0 else ABSENT,
        ),
    ]
    return [(name, value) for name, value in rows if value != ABSENT]


def sampler_pictures(trace: xr.DataTree, found: Diagnosis) -> list[Picture]:
    """Draw energy, adaptation and divergences."""
    from pyro_bnn.diagnostics.plots.adaptation import plot_adaptation
    from pyro_bnn.diagnostics.plots.divergences import plot_divergences
    from pyro_bnn.diagnostics.plots.energy import plot_energies

    pictures = []
    energy = stat(trace, "energy")
    if energy is not None and energy.shape[1] > 3 and np.isfinite(energy).all() and np.ptp(energy):
        pictures.append(
            picture(
                plot_energies(energy),
                "BFMI of each chain, and densities of energy and of its change.",
                "Energy: the two distributions should be about as wide; a chain left of the dashes"
                " (BFMI 0.3) explores its energies slowly.",
            )
        )
    acceptance, step_size = stat(trace, "acceptance_rate"), stat(trace, "step_size")
    if acceptance is not None or step_size is not None:
        pictures.append(
            picture(
                plot_adaptation(acceptance, step_size),
                "Acceptance rate and step size over the draws.",
                "Acceptance and step size: level lines mean that adaptation had ended.",
            )
        )
    divergences = found.sampler.divergences
    if divergences is not None and divergences.any():
        pictures.append(
            picture(
                plot_divergences(divergences, found.sampler.draws),
                "Number of divergent transitions of each chain.",
                "Divergences of each chain.",
            )
        )
    return pictures
