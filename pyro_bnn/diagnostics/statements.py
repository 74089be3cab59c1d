"""What the symmetry group says of any posterior, beside what the draws say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm

_NEEDED = ("kind", "where", "value", "expectation", "z")


@dataclass(frozen=True)
class Statement:
    """The identities of one kind at one place, unit by unit.

    Attributes
    ----------
    kind
        Such as ``"virial"``.
    where
        The hidden space or site.
    z
        Distance of each average from its exact expectation in Monte-Carlo standard errors, shape
        ``(unit,)``; NaN where the error is not known.
    value, expectation
        Means over the units.
    """

    kind: str
    where: str
    z: NDArray[np.float64]
    value: float
    expectation: float

    @property
    def worst(self) -> float:
        """The z of largest size, with its sign; NaN if none is known."""
        known = self.z[~np.isnan(self.z)]
        return float(known[np.abs(known).argmax()]) if len(known) else float("nan")

    @property
    def p_value(self) -> float:
        """Normal two-sided p-value of the worst z, times the number of units (Bonferroni)."""
        known = int((~np.isnan(self.z)).sum())
        return min(1.0, known * 2 * float(norm.sf(abs(self.worst)))) if known else float("nan")


def statements(trace: xr.DataTree) -> list[Statement]:
    """Read the group ``identities``.

    Parameters
    ----------
    trace
        A trace; its group ``identities`` has the dimension ``statement``.

    Returns
    -------
    list of Statement
        In the order of their first rows; empty if the trace has none.
    """
    if "identities" not in trace.children:
        return []
    group = trace["identities"].to_dataset()
    if any(name not in group.variables for name in _NEEDED):
        return []
    kinds, places = (group[name].to_numpy().astype(str) for name in ("kind", "where"))
    numbers = {
        n: np.asarray(group[n].to_numpy(), np.float64) for n in ("value", "expectation", "z")
    }
    results = []
    for kind, where in dict.fromkeys(zip(kinds.tolist(), places.tolist(), strict=True)):
        rows = (kinds == kind) & (places == where)
        results.append(
            Statement(
                kind=kind,
                where=where,
                z=numbers["z"][rows],
                value=float(numbers["value"][rows].mean()),
                expectation=float(numbers["expectation"][rows].mean()),
            )
        )
    return results
