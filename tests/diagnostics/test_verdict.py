"""Words follow numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.sampler import sampler
from pyro_bnn.diagnostics.verdict import comparison, headline, verdicts


def with_chains_apart(distance: float) -> xr.DataTree:
    draws = np.random.default_rng(0).normal(size=(4, 2_000, 20))
    draws[0] += distance
    return xr.DataTree.from_dict(
        {"predictions": xr.Dataset({"log_predictive": (("chain", "draw", "test"), draws)})}
    )


@pytest.mark.parametrize(("distance", "level"), [(0.0, "good"), (0.35, "fair"), (2.0, "poor")])
def test_levels_follow_the_largest_rhat(distance: float, level: str) -> None:
    found = diagnose(with_chains_apart(distance))
    highest = found.convergence["function"].rhat.max()
    assert {"good": highest <= 1.01, "fair": 1.01 < highest <= 1.05, "poor": highest > 1.05}[level]
    assert headline(found).level == level
    assert verdicts(found)[0].level == level


def test_one_bad_input_is_enough() -> None:
    trace = with_chains_apart(0.0)
    trace["predictions"]["log_predictive"][0, :, 7] += 3.0
    assert headline(diagnose(trace)).level == "poor"


def test_no_divergence_is_said_to_be_good(trace: xr.DataTree, diagnosis: Diagnosis) -> None:
    clean = trace.copy(deep=True)
    clean["sample_stats"]["diverging"][:] = False
    found = replace(diagnosis, sampler=sampler(clean))
    (verdict,) = [v for v in verdicts(found) if v.subject == "Divergences"]
    assert (verdict.level, verdict.text) == ("good", "0 of 400 transitions diverged.")


def test_comparison_names_the_better_one(diagnosis: Diagnosis) -> None:
    text = comparison(diagnosis)
    lower = diagnosis.posterior.scores()["nll"] < diagnosis.point.scores()["nll"]
    assert f"{'lower' if lower else 'higher'} negative log likelihood" in text
    assert comparison(diagnose(xr.DataTree())) == ""


def test_draws_that_are_not_finite_are_not_called_disagreement() -> None:
    trace = with_chains_apart(0.0)
    trace["predictions"]["log_predictive"][0, 5, 7] = -np.inf
    said = headline(diagnose(trace))
    assert said.level == "poor"
    assert said.text.startswith("Of 1 of the predictions on the test inputs some draws are not fin")
    assert "of all others it is at most 1.05" in said.text
    trace["predictions"]["log_predictive"][0] += 2.0
    assert "do not agree" in headline(diagnose(trace)).text


def test_weights_that_are_not_finite_are_not_called_modes_of_their_own(trace: xr.DataTree) -> None:
    rng = np.random.default_rng(0)
    agreeing = trace.copy(deep=True)
    for group in ("posterior", "canonical_posterior"):
        for site in agreeing[group].data_vars:
            agreeing[group][site].values = rng.normal(size=agreeing[group][site].shape)
    agreeing["posterior"]["0.bias"][0, 3, 1] = np.nan
    found = diagnose(agreeing)
    assert found.convergence["weight"].nonfinite == ("0.bias[1]",)
    assert np.nanmax(found.convergence["weight"].rhat) < 1.05
    assert "They do not agree" not in headline(found).text
