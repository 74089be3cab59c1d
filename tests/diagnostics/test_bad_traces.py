"""What is wrong with a trace is said in a sentence, and the rest of its report is made."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from pyro_bnn.diagnostics import diagnose
from pyro_bnn.diagnostics.report import embeddings, render

MakeTrace = Callable[..., xr.DataTree]


def one_chain(make_trace: MakeTrace) -> xr.DataTree:
    return make_trace(chains=1, draws=30)


def one_draw(make_trace: MakeTrace) -> xr.DataTree:
    return make_trace(chains=4, draws=1)


def one_draw_in_all(make_trace: MakeTrace) -> xr.DataTree:
    return make_trace(chains=1, draws=1)


def constant_site(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy(deep=True)
    trace["posterior"]["2.bias"][:] = 0.5
    return trace


def all_constant(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy(deep=True)
    for group in ("posterior", "canonical_posterior"):
        for site in trace[group].data_vars:
            trace[group][site][:] = 0.5
    return trace


def nan_draw(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy(deep=True)
    trace["posterior"]["0.bias"][1, 3, 2] = np.nan
    return trace


def all_nan(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy(deep=True)
    for group in ("posterior", "canonical_posterior", "predictions"):
        for site in trace[group].data_vars:
            trace[group][site][:] = np.nan
    return trace


def no_labels(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy()
    del trace["predictions_constant_data"]
    return trace


def weights_only(make_trace: MakeTrace) -> xr.DataTree:
    posterior = make_trace(draws=30)["posterior"].to_dataset()
    return xr.DataTree.from_dict({"posterior": posterior})


def one_class_elsewhere(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy()
    group = trace["predictions_ood"].to_dataset().isel({"class": slice(0, 1)})
    trace["predictions_ood"] = xr.DataTree(group)
    return trace


def nothing_elsewhere(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy()
    group = trace["predictions_ood"].to_dataset().isel(test=slice(0, 0))
    trace["predictions_ood"] = xr.DataTree(group)
    return trace


def fewer_labels_than_classes(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(classes=4, draws=30).copy(deep=True)
    y = trace["predictions_constant_data"]["y"]
    y[:] = np.minimum(y.to_numpy(), 1)
    return trace


def labels_beyond_the_classes(make_trace: MakeTrace) -> xr.DataTree:
    trace = make_trace(draws=30).copy(deep=True)
    trace["predictions_constant_data"]["y"][4] = 9
    return trace


SECTIONS = ("What can be trusted", "Convergence in three spaces", "The sampler and its cost")
SCORES = '<th scope="row">Negative log likelihood'
CASES: list[tuple[Callable[[MakeTrace], xr.DataTree], str, bool]] = [
    (one_chain, "R-hat is not defined (one chain only", True),
    (one_draw, "R-hat is not defined (one draw a chain", True),
    (one_draw_in_all, "R-hat is not defined (one chain only", True),
    (constant_site, "Scalars that never change, and so have no R-hat: 3 (2.bias[0]", True),
    (all_constant, "all draws constant or not finite", True),
    (nan_draw, "Draws that hold a weight that is NaN or infinite: 1.", True),
    (all_nan, "Draws that hold a weight that is NaN or infinite: 120.", True),
    (no_labels, "(group predictions_constant_data)", True),
    (weights_only, "The trace holds no predictions of the posterior.", False),
    (one_class_elsewhere, "have fewer than two classes", True),
    (nothing_elsewhere, "The split from elsewhere has no inputs", True),
    (fewer_labels_than_classes, "4 classes, of which the labels hold 2", True),
    (labels_beyond_the_classes, "but the predictions have 3 classes", True),
]


@pytest.mark.parametrize(
    ("make", "sentence", "scored"), CASES, ids=[make.__name__ for make, _, _ in CASES]
)
@pytest.mark.usefixtures("_undrawn")
def test_a_sentence_and_the_rest_of_the_report(
    make: Callable[[MakeTrace], xr.DataTree],
    sentence: str,
    scored: bool,
    make_trace: MakeTrace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings, "has_method", lambda method: method == "pca")
    trace = make(make_trace)
    page = render(trace, diagnose(trace, max_scalars=40))
    assert sentence in page
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in page
    assert (SCORES in page) == scored
    told = page.partition("<h2>To run it again</h2>")[0]
    assert "nan" not in re.sub(r"<[^>]*>", " ", told).split()
