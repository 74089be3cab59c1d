"""Attributes of a trace with any values: judged, or refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil

import netCDF4
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_bnn.infer.cli.judging import judge

PLACES = [
    ("", "dead_chains"),
    ("", "members"),
    ("", "recipe"),
    ("", "model"),
    ("", "method"),
    ("", "seed"),
    ("", "seconds_sampling"),
    ("", "gradients"),
    ("", "created_at"),
    ("", "creation_library"),
    ("symmetry", "group"),
    ("symmetry", "table"),
    ("symmetry", "function_error"),
    ("symmetry", "draws"),
    ("symmetry", "permutation"),
    ("symmetry", "sort_rule"),
    ("symmetry", "distinct_permutations"),
    ("identities", "dead_chains"),
    ("predictions", "likelihood"),
    ("posterior", "anything"),
]
NUMBERS = st.integers(-(2**60), 2**60) | st.floats()
VALUES = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
    | NUMBERS
    | st.lists(NUMBERS, min_size=2, max_size=4).map(np.array)
    | st.recursive(NUMBERS | st.none(), st.lists, max_leaves=4).map(json.dumps)
)
EXAMPLES = max(8, int(os.environ.get("PYRO_BNN_FUZZ", "0")) // 10)
fuzzed = settings(settings.get_profile("robustness"), max_examples=EXAMPLES)


@pytest.fixture(scope="module")
def trace(divided, tmp_path_factory):
    """Name a file to write odd attributes into, and the sound one to copy."""
    path = tmp_path_factory.mktemp("odd") / "trace.nc"
    return path, divided / "trace.nc"


@fuzzed
@given(st.sampled_from(PLACES), VALUES)
@example(("", "dead_chains"), "[99]")
@example(("", "dead_chains"), "{}")
@example(("", "dead_chains"), "not JSON")
@example(("", "dead_chains"), "[0, 1]")
@example(("", "members"), "[0]")
@example(("", "members"), '"text"')
@example(("", "recipe"), "= not TOML")
@example(("symmetry", "group"), "{}")
@example(("symmetry", "permutation"), np.array([1.0, 2.0]))
@example(("predictions", "likelihood"), "no such likelihood")
def test_any_attribute_with_any_value(outcome, trace, place, value):
    path, sound = trace
    shutil.copyfile(sound, path)
    group, name = place
    with netCDF4.Dataset(path, "a") as file:
        if group and group not in file.groups:
            return
        (file[group] if group else file).setncattr(name, value)
    _, refused = outcome(judge, path, path.with_name("summary.json"), None)
    assert refused is None or refused.strip()


def test_the_report_escapes_what_it_shows(trace):
    path, sound = trace
    shutil.copyfile(sound, path)
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    with netCDF4.Dataset(path, "a") as file:
        for group, name in PLACES:
            if name in ("model", "method", "created_at", "creation_library", "table", "recipe"):
                (file[group] if group else file).setncattr(name, evil)
        weights = file["posterior"]
        weights.renameVariable("0.weight", "w<script>alert(2)<script>")
    report = path.with_name("report.html")
    judge(path, path.with_name("summary.json"), report)
    page = report.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
