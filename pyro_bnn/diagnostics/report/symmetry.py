"""The section on symmetry: the group, and what its orbits say of the sampler."""

from __future__ import annotations

import math

import xarray as xr

from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.format import number
from pyro_bnn.diagnostics.report.pieces import Picture, picture


def orbit_rows(found: Diagnosis) -> list[tuple[str, str, str]]:
    """Lay out each hidden space: name, units, distinct permutations."""
    if found.orbits is None:
        return []
    return [
        (name, f"{found.orbits.sizes[name]:,}", f"{count:,} of {found.orbits.samples:,}")
        for name, count in found.orbits.distinct.items()
    ]


def log_order(found: Diagnosis) -> str:
    """Write the decimal logarithm of the number of discrete group elements."""
    if found.orbits is None or math.isnan(found.orbits.log_order):
        return ""
    return f"{found.orbits.log_order / math.log(10):.1f}"


def orbit_notes(found: Diagnosis) -> list[tuple[str, str]]:
    """List how the representative was chosen, as name and value."""
    if found.orbits is None:
        return []
    notes = list(found.orbits.notes.items())
    if not math.isnan(found.orbits.mass_after):
        before, after = number(found.orbits.mass_before), number(found.orbits.mass_after)
        notes.append(("Sum of squared weights, median", f"{before} sampled, {after} canonical"))
    return notes


def sorts_each_draw(trace: xr.DataTree) -> bool:
    """Whether the quotient put each draw in order without looking at another draw."""
    return "symmetry" in trace.children and trace["symmetry"].attrs.get("permutation") == "sort"


def exchangeability_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out the exchangeability test of each hidden space."""
    return [
        {
            "space": test.space,
            "draws": f"{test.draws:,}",
            "chi2": f"{number(test.chi2)} ({len(test.counts) - 1})",
            "p": _p(test.p_value),
            "stuck": f"{test.stuck} of {test.chains}",
        }
        for test in found.exchangeability.values()
    ]


def statement_rows(found: Diagnosis) -> list[dict[str, str]]:
    """Lay out the group's identities, a row for each kind and place."""
    return [
        {
            "kind": one.kind,
            "where": one.where,
            "expectation": number(one.expectation),
            "value": number(one.value),
            "units": f"{len(one.z):,}",
            "z": number(one.worst, fixed=True),
            "p": _p(one.p_value),
        }
        for one in found.statements
    ]


def _p(p_value: float) -> str:
    return (
        "< 0.0001"
        if p_value < 1e-4
        else number(p_value)
        if math.isnan(p_value)
        else f"{p_value:.4f}"
    )


def mixing_pictures(found: Diagnosis) -> list[Picture]:
    """Draw how often each unit holds the largest weight."""
    from pyro_bnn.diagnostics.plots.exchangeability import plot_exchangeability

    if not found.exchangeability:
        return []
    counts = {space: test.counts for space, test in found.exchangeability.items()}
    return [
        picture(
            plot_exchangeability(counts),
            "Bars of how often each hidden unit holds the largest weight, with the band of"
            " exchangeable units.",
            "Order of units: bars outside the band are units that the sampler favours, which the"
            " posterior does not.",
        )
    ]
