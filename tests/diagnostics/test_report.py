"""The report: complete, self-contained, and made from whatever a trace holds."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from pyro_bnn.diagnostics import diagnose, write_report
from pyro_bnn.diagnostics.diagnosis import Diagnosis
from pyro_bnn.diagnostics.report import embeddings, render
from pyro_bnn.errors import UserError


@pytest.fixture(autouse=True)
def _without_tsne(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds a page; tests/diagnostics/test_embedding.py draws it."""
    monkeypatch.setattr(embeddings, "has_method", lambda method: method == "pca")


VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def pictures(self) -> list[str]:
        return [
            base64.b64decode(
                (attrs["src"] or "").removeprefix("data:image/svg+xml;base64,")
            ).decode()
            for tag, attrs in self.tags
            if tag == "img"
        ]


@pytest.fixture(scope="module")
def page(trace: xr.DataTree, diagnosis: Diagnosis) -> str:
    """Render the page of the shared trace once, with nothing left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "has_method", lambda method: method == "pca")
        before = dict(mpl.rcParams)
        text = render(trace, diagnosis)
        assert plt.get_fignums() == []
        assert dict(mpl.rcParams) == before
    return text


def test_page_needs_nothing_beside_it(any_trace: xr.DataTree, tmp_path: Path) -> None:
    path = write_report(any_trace, tmp_path / "report.html", diagnose(any_trace, max_scalars=20))
    assert list(tmp_path.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "http" not in re.sub(r"data:image[^\"]*", "", text)
    assert "url(" not in text
    for picture in page.pictures():
        ElementTree.fromstring(picture)
        addresses = set(re.findall(r"https?://[^\"' ]+", picture))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    classes = any_trace["predictions"].attrs["likelihood"] != "continuous"
    assert len(page.pictures()) == 21 + 2 * classes
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_page_says_what_the_numbers_say(page: str) -> None:
    text = page
    assert "The chains agree on the predictions on the test inputs" in text
    assert "They do not agree on the weights" in text
    assert "5 of 400 transitions diverged" in text
    assert "S_4  permutation" in text
    assert "name = &#34;hmc&#34;" in text
    assert "synthetic_mlp" in text
    assert "<dt>Kernel</dt><dd>hmc</dd>" in text
    assert "<dt>Seed</dt><dd>0</dd>" in text


@pytest.mark.parametrize(
    "missing",
    [
        "posterior",
        "symmetry",
        "predictions",
        *(
            pytest.param(group, marks=pytest.mark.slow)
            for group in (
                "canonical_posterior",
                "canonical_prior",
                "sample_stats",
                "predictions_constant_data",
                "predictions_ood",
                "predictions_corrupted",
                "log_likelihood",
                "point_estimate",
            )
        ),
    ],
)
@pytest.mark.usefixtures("_undrawn")
def test_a_missing_group_leaves_the_rest(trace: xr.DataTree, missing: str) -> None:
    rest = {name: node for name, node in trace.children.items() if name != missing}
    smaller = xr.DataTree.from_dict({name: node.to_dataset() for name, node in rest.items()})
    text = render(smaller, diagnose(smaller, max_scalars=10))
    Page(text)
    assert f"(group {missing})" in text or missing == "canonical_prior"
    assert ("Corrupted inputs" in text) == (missing != "predictions_corrupted")
    assert ("PSIS-LOO" in text) == (missing != "log_likelihood")
    assert ("holds no predictions" in text) == (missing == "predictions")
    assert ("holds no canonical weights" in text) == (missing == "canonical_posterior")
    assert ("no control is drawn" in text) == (missing == "canonical_prior")
    assert "holds no recipe" in text


def test_a_trace_of_nothing_still_makes_a_page() -> None:
    empty = xr.DataTree()
    text = render(empty, diagnose(empty))
    assert Page(text).pictures() == []
    assert "holds no draws" in text


def test_one_chain_and_few_draws(make_trace) -> None:
    for chains, draws in ((1, 50), (4, 3), (1, 1)):
        trace = make_trace(chains=chains, draws=draws)
        text = render(trace, diagnose(trace))
        assert "R-hat is not defined" in text


def test_broken_draws_are_named(trace: xr.DataTree) -> None:
    broken = trace.copy(deep=True)
    broken["canonical_posterior"]["0.bias"][1, 3, 2] = np.nan
    broken["posterior"]["0.bias"][1, 3, 2] = np.nan
    broken["posterior"]["2.bias"][:, :, 1] = 0.5
    broken["predictions"]["log_predictive"][0, 0, 0] = np.nan
    broken["sample_stats"]["energy"][0, 0] = np.nan
    text = render(broken, diagnose(broken))
    assert "0.bias[2]" in text
    assert "2.bias[1]" in text
    assert "Draws that predict NaN or an infinite mean, left out of the averages: 1." in text
    assert "Draws that hold a weight that is NaN or infinite: 1." in text


@pytest.mark.usefixtures("_undrawn")
def test_text_from_the_trace_is_escaped(trace: xr.DataTree, diagnosis: Diagnosis) -> None:
    hostile = trace.copy()
    hostile.attrs["model"] = "<script>alert(1)</script>"
    assert "<script>" not in render(hostile, diagnosis)


@pytest.mark.usefixtures("_undrawn")
def test_report_of_a_run_directory(trace: xr.DataTree, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    trace.to_netcdf(run / "trace.nc")
    path = write_report(run, run / "report.html")
    assert "synthetic_mlp" in path.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no trace"):
        write_report(tmp_path / "absent", tmp_path / "report.html")


def test_the_same_trace_gives_the_same_page(
    page: str, trace: xr.DataTree, diagnosis: Diagnosis
) -> None:
    assert render(trace, diagnosis) == page
