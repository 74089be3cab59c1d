"""Recipes of any content: read, or refused in one sentence; what is read can be written."""

from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.choosing import assignment
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.settings import GUIDES, KERNELS

KEYS = sorted({key for rows in Recipe.documentation().values() for key, _, _ in rows})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*KERNELS, *GUIDES, "auto", "cpu", "cuda:99", "meta", "../../etc", "none"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
TABLES = st.dictionaries(
    st.sampled_from([*{key.partition(".")[0] for key in KEYS}, "", "x"]),
    VALUES
    | st.dictionaries(st.sampled_from([key.partition(".")[2] for key in KEYS]), VALUES, max_size=4),
    max_size=4,
)
fuzzed = settings.get_profile("robustness")


def read(outcome, tables, overrides):
    """Parse, and hold what was read to its promise."""
    recipe, refused = outcome(Recipe.parse, tables, "the fuzzer", overrides)
    if recipe is None:
        assert refused.strip()
        return
    again = Recipe.parse(tomllib.loads(recipe.to_toml()), "what it wrote")
    assert again == recipe
    assert all(
        math.isfinite(value)
        for table in recipe.tables().values()
        for value in table.values()
        if isinstance(value, float)
    )


@fuzzed
@given(TABLES, st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=12), VALUES, max_size=2))
@example({"run": {"seed": 2**70}}, {})
@example({"run": {"likelihood_temperature": math.inf}}, {})
@example({"kernel": {"name": []}}, {})
@example({"kernel": 3}, {"kernel.name": "hmc"})
@example({"guide": {"name": "dropout", "rate": {"*.weight": 0.1, '"\x7f\n': 0.2}}}, {})
def test_tables_of_any_values(outcome, tables, overrides):
    read(outcome, tables, overrides)


@fuzzed
@given(st.sampled_from(KEYS), SCALARS)
@example("run.device", "\N{LINEAR B SYLLABLE B008 A}")
def test_every_key_takes_any_value(outcome, key, value):
    table, _, name = key.partition(".")
    method, kinds = ("guide", GUIDES) if table == "guide" else ("kernel", KERNELS)
    for kind in (*kinds, None):
        named = {} if kind is None else {method: {"name": kind}}
        read(outcome, {**named, table: {**named.get(table, {}), name: value}}, {})


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"[run]\nchains = 99999999999999999999999999999\n")
@example(b"\xff\xfe[run]")
@example(b"x = " + b"[" * 5000)
def test_files_of_any_bytes(outcome, tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    _, refused = outcome(Recipe.read, path)
    assert refused is None or "fuzzed.toml" in refused


@fuzzed
@given(st.text(max_size=40))
@example("run.draws=" + "[" * 5000)
@example("=")
def test_assignments_of_any_text(outcome, text):
    found, refused = outcome(assignment, text)
    if found is None:
        assert "KEY=VALUE" in refused
    else:
        read(outcome, {}, dict([found]))


def test_no_key_names_a_file():
    """Strings of a recipe choose among names, or are a device by its pattern: none is a path."""
    free = []
    for table, _, kind in Recipe._tables():
        for name, field in kind.model_fields.items():
            text = str(field.annotation)
            if "Path" in text or field.annotation is str or "str |" in text:
                free.append(f"{table}.{field.alias or name}")
    assert free == ["run.device"]
    with pytest.raises(UserError):
        Recipe.parse({"kernel": {"name": "../hmc"}}, "the fuzzer")
