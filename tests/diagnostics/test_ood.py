"""Detection of inputs from elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.ood import detect, ood_problem, out_of_distribution
from pyro_bnn.diagnostics.prediction import posterior_prediction
from pyro_bnn.diagnostics.verdict import verdicts


def test_detection_equals_plain_loops() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=60), rng.normal(size=45) + 1
    found = detect(inside, outside)
    wins = [(o > i) + 0.5 * (o == i) for o in outside for i in inside]
    assert found.auroc == pytest.approx(np.mean(wins))
    # The threshold that flags 95 % of the others, 43 of 45.
    threshold = np.sort(outside)[::-1][int(np.ceil(0.95 * 45)) - 1]
    assert found.fpr95 == pytest.approx(np.mean(inside >= threshold))
    precisions = [
        np.sum(outside >= t) / (np.sum(outside >= t) + np.sum(inside >= t)) for t in outside
    ]
    assert found.aupr == pytest.approx(np.mean(precisions))


def test_perfect_and_useless_scores() -> None:
    perfect = detect(np.zeros(10), np.ones(10))
    assert (perfect.auroc, perfect.aupr, perfect.fpr95) == (1, 1, 0)
    useless = detect(np.zeros(10), np.zeros(10))
    assert (useless.auroc, useless.aupr, useless.fpr95) == (0.5, 0.5, 1)


def test_splits_and_scores_of_a_trace(any_trace: xr.DataTree) -> None:
    prediction = posterior_prediction(any_trace)
    assert prediction is not None
    found = out_of_distribution(any_trace, prediction)
    assert list(found) == ["noise", "letters"]
    scores = set(found["noise"].detection)
    if prediction.is_classification:
        assert scores == {"max_softmax", "entropy", "mutual_information"}
        assert found["noise"].detection["mutual_information"].auroc > 0.9
    else:
        assert scores == {"spread"}
        assert found["noise"].detection["spread"].auroc == 1
    assert len(found["noise"].outside[min(scores)]) == 20


def test_without_names_there_is_one_split(trace: xr.DataTree) -> None:
    unnamed = trace.copy()
    group = trace["predictions_ood"].to_dataset()
    del group.attrs["splits"]
    unnamed["predictions_ood"] = xr.DataTree(group)
    found = out_of_distribution(unnamed, posterior_prediction(unnamed))
    assert list(found) == ["ood"]
    assert out_of_distribution(unnamed, None) == {}
    assert out_of_distribution(xr.DataTree(), posterior_prediction(trace)) == {}


def test_one_input_from_elsewhere_is_enough(trace: xr.DataTree) -> None:
    small = trace.copy()
    group = trace["predictions_ood"].to_dataset().isel(test=slice(0, 1))
    group.attrs["splits"] = json.dumps({"one": 1})
    small["predictions_ood"] = xr.DataTree(group)
    found = out_of_distribution(small, posterior_prediction(small))
    assert np.isfinite(found["one"].detection["entropy"].auroc)


def test_sizes_that_do_not_fit_make_one_split(trace: xr.DataTree) -> None:
    odd = trace.copy()
    group = trace["predictions_ood"].to_dataset()
    group.attrs["splits"] = json.dumps({"a": 1, "b": 2})
    odd["predictions_ood"] = xr.DataTree(group)
    assert list(out_of_distribution(odd, posterior_prediction(odd))) == ["ood"]


def test_what_cannot_be_judged_is_said(trace: xr.DataTree) -> None:
    inside = posterior_prediction(trace)
    group = trace["predictions_ood"].to_dataset()
    cases = {
        "has no inputs": group.isel(test=slice(0, 0)),
        "fewer than two classes": group.isel({"class": slice(0, 1)}),
        "2 classes, those on the test split 3": group.isel({"class": slice(0, 2)}),
    }
    assert ood_problem(trace, inside) == ""
    for words, changed in cases.items():
        broken = trace.copy()
        broken["predictions_ood"] = xr.DataTree(changed)
        assert words in ood_problem(broken, inside)
        assert out_of_distribution(broken, inside) == {}
    found = diagnose(broken, max_scalars=5)
    assert words in " ".join(verdict.text for verdict in verdicts(found))
    assert found.diversity_ood is None


def test_a_split_without_inputs_leaves_the_others(trace: xr.DataTree) -> None:
    some = trace.copy()
    some["predictions_ood"].attrs["splits"] = '{"none": 0, "letters": 40}'
    assert list(out_of_distribution(some, posterior_prediction(some))) == ["letters"]


def test_rows_of_several_values_have_one_score(regression: xr.DataTree) -> None:
    # As of a network with two outputs: the second says nothing here.
    several = regression.copy()
    for name in ("predictions", "predictions_ood"):
        mean = regression[name]["mean"].expand_dims(value=2, axis=3).copy()
        mean[..., 1] = 0.25
        several[name] = xr.DataTree(xr.Dataset({"mean": mean}, attrs=regression[name].attrs))
    found, one = (out_of_distribution(t, posterior_prediction(t)) for t in (several, regression))
    assert found["noise"].detection == one["noise"].detection
    np.testing.assert_allclose(found["noise"].inside["spread"], one["noise"].inside["spread"])


def test_a_rate_that_overflows_elsewhere_is_left_out(regression: xr.DataTree) -> None:
    broken = regression.copy(deep=True)
    broken["predictions_ood"]["mean"][2, 3, 30] = np.inf
    found = out_of_distribution(broken, posterior_prediction(broken))
    assert np.isfinite(found["letters"].outside["spread"]).all()
