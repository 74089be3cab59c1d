"""What the report says of the symmetry group: only what played a part."""

from __future__ import annotations

import pytest
import xarray as xr

from pyro_bnn.diagnostics.orbits import orbits


def notes(trace: xr.DataTree, **attrs: str) -> dict[str, str]:
    group = trace["symmetry"].to_dataset().assign_attrs(attrs)
    found = orbits(xr.DataTree.from_dict({"symmetry": group}))
    assert found is not None
    return found.notes


@pytest.mark.parametrize(
    ("permutation", "label"),
    [
        ("sort", "Sorted by"),
        ("align", "Sorted before they are matched by"),
        ("activation-matching", "Sorted before they are matched by"),
        ("nearest-neighbour", "Sorted before they are matched by"),
        ("weight-matching", None),
        ("none", None),
    ],
)
def test_a_sort_rule_is_named_for_what_it_did(
    trace: xr.DataTree, permutation: str, label: str | None
) -> None:
    found = notes(trace, permutation=permutation, sort_rule="max", scaling="min-mass")
    assert found["Order of units"] == permutation
    assert found["Scale of units"] == "min-mass"
    assert {name for name in found if name.startswith("Sorted")} == ({label} if label else set())
    assert label is None or found[label] == "max"
