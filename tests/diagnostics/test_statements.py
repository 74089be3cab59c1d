"""The symmetry group's identities, as the trace holds them, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from pyro_bnn.diagnostics import diagnose, summarize
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.statements import statements
from pyro_bnn.diagnostics.verdict import verdicts


def identities(virial: list[float], shift: list[float]) -> xr.Dataset:
    z = np.array(virial + shift)
    return xr.Dataset(
        {
            "kind": ("statement", ["virial"] * len(virial) + ["output shift"] * len(shift)),
            "where": ("statement", ["h0"] * len(virial) + ["2.bias"] * len(shift)),
            "unit": ("statement", [*range(len(virial)), *range(len(shift))]),
            "expectation": ("statement", np.full(len(z), 2.0)),
            "value": ("statement", 2.0 + 0.1 * z),
            "mcse": ("statement", np.full(len(z), 0.1)),
            "z": ("statement", z),
        }
    )


def test_rows_are_joined_by_kind_and_place() -> None:
    tree = xr.DataTree.from_dict({"identities": identities([0.5, -1.5], [np.nan, 1.0])})
    virial, shift = statements(tree)
    assert (virial.kind, virial.where, virial.worst) == ("virial", "h0", -1.5)
    assert virial.value == pytest.approx(1.95)
    assert virial.p_value == pytest.approx(2 * 2 * norm.sf(1.5))
    assert shift.worst == 1.0
    assert shift.p_value == pytest.approx(2 * norm.sf(1.0))
    unknown = xr.DataTree.from_dict({"identities": identities([np.nan], [])})
    assert np.isnan(statements(unknown)[0].p_value)
    assert statements(xr.DataTree()) == []


def test_the_summary_says_along_what_a_sampler_has_not_mixed(
    trace: xr.DataTree, diagnosis: Diagnosis
) -> None:
    with_identities = trace.copy()
    with_identities["identities"] = xr.DataTree(identities([0.5, -1.5, 9.0], [1.0]))
    found = replace(diagnosis, statements=statements(with_identities))
    texts = {verdict.subject: verdict for verdict in verdicts(found)}
    assert texts["Identities"].level == "poor"
    assert "has not mixed along the scaling orbits of h0" in texts["Identities"].text
    assert "9.0 standard errors" in texts["Identities"].text
    summary = summarize(with_identities, found)
    assert summary["identities.z"] == 9.0
    assert summary["identities.p"] < 1e-9
    fine = trace.copy()
    fine["identities"] = xr.DataTree(identities([0.5, -1.5], [1.0]))
    found = replace(diagnosis, statements=statements(fine))
    (good,) = [v for v in verdicts(found) if v.subject == "Identities"]
    assert good.level == "good"
    assert "All 3 averages" in good.text


def test_the_order_of_units_is_judged(trace: xr.DataTree) -> None:
    stuck = trace.copy(deep=True)
    rng = np.random.default_rng(0)
    weights = stuck["posterior"]["0.weight"]
    weights.values = 0.1 * rng.normal(size=weights.shape)
    weights.values[:, :, 2] += 5
    (verdict,) = [v for v in verdicts(diagnose(stuck, 5)) if v.subject == "Order of units"]
    assert verdict.level == "fair"
    assert "not mixed over the order of the units of h0" in verdict.text


def test_canonical_weights_are_judged_beside_their_control(diagnosis: Diagnosis) -> None:
    found = diagnosis
    texts = {verdict.subject: verdict.text for verdict in verdicts(found)}
    assert found.null is not None
    expected = f"have median {np.median(found.null.rhat):.3f} and maximum"
    assert expected in texts["Canonical weights"]
    assert "Control" not in texts["Weights"]
    bare = replace(found, null=None)
    assert not any("Control" in verdict.text for verdict in verdicts(bare))


@pytest.mark.parametrize(
    ("p_value", "level", "words"),
    [
        (0.5, "good", "no sign of bad mixing"),
        (0.02, "fair", "weak evidence"),
        (1e-4, "fair", "not"),
    ],
)
def test_the_order_of_units_is_graded_by_its_p_value(
    diagnosis: Diagnosis, p_value: float, level: str, words: str
) -> None:
    test = replace(diagnosis.exchangeability["h0"], p_value=p_value)
    (verdict,) = [
        v
        for v in verdicts(replace(diagnosis, exchangeability={"h0": test}))
        if v.subject == "Order of units"
    ]
    assert verdict.level == level
    assert words in verdict.text
