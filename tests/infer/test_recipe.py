"""Recipes: validated, written out whole, and read back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyro_bnn import UserError
from pyro_bnn.infer import Cyclical, PolynomialDecay
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.settings import KERNELS, HMCSettings, NUTSSettings
from pyro_bnn.infer.settings.guides import DropoutSettings

SHIPPED = [
    path
    for path in sorted((Path(__file__).parents[2] / "inference").glob("*.toml"))
    if "[kernel]" in path.read_text(encoding="utf-8")
]

FIXED = {"name": "hmc", "step_size": 0.01, "adapt_step_size": False}
CONTROLLED = {"name": "sgld", "batch_size": 5, "control_variates": True}
CYCLICAL = {"name": "sghmc", "steps_per_draw": 9, "schedule": "cyclical"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_build_their_kernel(path):
    recipe = Recipe.read(path)
    kernel = recipe.kernel.kernel(lambda: None)
    assert type(kernel).__name__.lower() == recipe.kernel.name.replace("-", "")
    values = recipe.kernel.model_dump(exclude={"name"}, exclude_none=True)
    schedule = getattr(kernel, "schedule", None)
    assert values.pop("schedule", None) == getattr(schedule, "name", None)
    for name, value in values.items():
        assert getattr(kernel if hasattr(kernel, name) else schedule, name) == value


def test_there_are_recipes():
    assert {"hmc", "nuts"} <= {path.stem for path in SHIPPED}


RATES = {"*.weight": 0.1, 'a "b" \\ \x7f \U0001f600': 0.2}


@pytest.mark.parametrize(
    "method",
    [
        {"kernel": HMCSettings(num_steps=3, jitter=0.25)},
        {"kernel": NUTSSettings()},
        {"guide": DropoutSettings(rate=RATES)},
    ],
)
def test_written_out_and_read_back(tmp_path, method):
    recipe = Recipe(**method)
    path = tmp_path / "own.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe


def test_a_file_of_an_editor_for_windows_is_read(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes("[run]\r\nchains = 3\r\n".encode("utf-8-sig"))
    assert Recipe.read(path).run.chains == 3


def test_overrides_lie_over_the_file():
    tables = {"kernel": {"name": "nuts"}, "run": {"chains": 3}}
    recipe = Recipe.parse(tables, "here", {"run.draws": 7, "kernel.max_tree_depth": 4})
    assert (recipe.run.chains, recipe.run.draws, recipe.kernel.max_tree_depth) == (3, 7, 4)


def test_every_key_is_documented():
    documentation = Recipe.documentation()
    keys = {key for rows in documentation.values() for key, _, meaning in rows if meaning}
    for table, settings in Recipe().tables().items():
        assert {f"{table}.{name}" for name in settings} <= keys
    assert "kernel.max_tree_depth" in keys
    for name in KERNELS:
        assert f'[kernel] name = "{name}"' in documentation


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("run.chians", 3, ["unknown key 'run.chians'", "did you mean 'run.chains'"]),
        ("run.chains", 0, ["the command line: run.chains = 0", "greater than or equal to 1"]),
        ("run.chains", "three", ["run.chains = 'three'", "integer"]),
        ("kernel.target_accept_prob", 1.0, ["kernel.target_accept_prob = 1.0", "less than 1"]),
        ("kernel.name", "gibbs", ["the kernels are hmc, nuts"]),
        ("kernel.max_tree_depth", 4, ["kernel 'hmc' has no key 'kernel.max_tree_depth'"]),
        ("run.posterior_temperature", 0, ["run.posterior_temperature = 0"]),
        ("draws", 3, ["unknown key 'draws'", "'run.draws'"]),
        ("nuts.max_tree_depth", 4, ["unknown key 'nuts'"]),
        ("qqqqqqqq.zzzzzzzz", 3, ["the keys are kernel."]),
    ],
)
def test_what_is_wrong_is_named(key, value, parts):
    with pytest.raises(UserError) as caught:
        Recipe.parse({"kernel": {"name": "hmc"}}, "own.toml", {key: value})
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        (
            {"kernel": {"name": "sgld", "cycle_steps": 50}},
            "key 'kernel.cycle_steps' belongs to kernel.schedule = 'cyclical', not to 'constant'",
        ),
        (
            {"kernel": {"name": "sghmc", "schedule": "cyclical", "power": 0.6}},
            "key 'kernel.power' belongs to kernel.schedule = 'polynomial', not to 'cyclical'",
        ),
        (
            {"kernel": {"name": "sgld", "control_variates": True}},
            "kernel.control_variates needs kernel.batch_size",
        ),
        (
            {"start": {"from": "ensemble", "members": 3}, "run": {"chains": 4}},
            "run.chains = 4 is no multiple of start.members = 3",
        ),
        (
            {"guide": {"name": "map"}, "orbit": {"every": 1}},
            "the tables [start] and [orbit] belong to [kernel], not to [guide]",
        ),
        (
            {"kernel": {"name": "chees"}, "run": {"chains": 1}},
            "chees learns across 2 chains or more, and run.chains = 1 leaves one alone: give "
            "another number, or take a recipe whose chains need no others, such as hmc.toml",
        ),
        (
            {"kernel": {"name": "chees"}, "run": {"chains": 9, "block": 4}},
            "chees learns across 2 chains or more, and run.chains = 9 in blocks of 4 leaves one "
            "alone: give another number, or take a recipe whose chains need no others, such as "
            "hmc.toml",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_named(tables, sentence):
    with pytest.raises(UserError) as caught:
        Recipe.parse(tables, "own.toml")
    assert str(caught.value) == f"own.toml: {sentence}"


def test_a_schedule_is_built_from_its_keys():
    tables = {"name": "sgld", "schedule": "cyclical", "cycle_steps": 50, "exploration": 0.4}
    kernel = Recipe.parse({"kernel": tables}, "own.toml").kernel.kernel(lambda: None)
    assert kernel.schedule == Cyclical(cycle_steps=50, exploration=0.4)
    # What the table leaves out has the schedule's own default.
    tables = {"name": "sgld", "schedule": "polynomial", "power": 0.9}
    kernel = Recipe.parse({"kernel": tables}, "own.toml").kernel.kernel(lambda: None)
    assert kernel.schedule == PolynomialDecay(power=0.9)


@pytest.mark.parametrize(
    ("tables", "compiled"),
    [
        ({"kernel": {"name": "hmc", "num_steps": 40}}, False),
        ({"kernel": {"name": "hmc", "num_steps": 40}, "run": {"draws": 163}}, True),
        ({"kernel": {"name": "hmc", "num_steps": 40}, "run": {"draws": 162}}, False),
        ({"kernel": {"name": "nuts"}}, False),
        ({"kernel": {"name": "chees"}, "run": {"draws": 100}}, False),
        ({"kernel": {"name": "chees"}}, True),
        ({"kernel": {"name": "chees", "adapt_num_steps": False, "num_steps": 105}}, True),
        ({"kernel": {**FIXED, "trajectory_length": 0.41}}, False),
        ({"kernel": {**FIXED, "trajectory_length": 0.42}}, True),
        ({"kernel": {"name": "adjusted-mclmc", "adapt_num_steps": False, "num_steps": 20}}, False),
        ({"kernel": {"name": "adjusted-mclmc", "adapt_num_steps": False, "num_steps": 21}}, True),
        ({"kernel": {"name": "mclmc", "steps_per_draw": 21}}, True),
        ({"kernel": {"name": "mclmc", "steps_per_draw": 20}}, False),
        ({"kernel": {"name": "sgld", "steps_per_draw": 1000}, "run": {"draws": 1000}}, True),
        ({"kernel": {**CONTROLLED, "steps_per_draw": 20}}, False),
        ({"kernel": {**CONTROLLED, "steps_per_draw": 21}}, True),
        ({"kernel": {**CYCLICAL, "exploration": 0.7}}, False),
        ({"kernel": {**CYCLICAL, "exploration": 0.9}}, True),
        ({"kernel": {"name": "hmc"}, "run": {"compile": "always"}}, True),
        ({"kernel": {"name": "sgld", "steps_per_draw": 10**6}, "run": {"compile": "never"}}, False),
        ({"guide": {"name": "map"}}, False),
        ({"guide": {"name": "map", "epochs": 1250}}, True),
        ({"guide": {"name": "map", "epochs": 1249}}, False),
        ({"guide": {"name": "map", "epochs": 12500, "batch_size": 2000}}, True),
        ({"guide": {"name": "map"}, "run": {"compile": "always"}}, True),
        ({"guide": {"name": "map", "epochs": 99999}, "run": {"compile": "never"}}, False),
    ],
)
def test_a_run_is_compiled_where_it_is_long_enough(tables, compiled):
    assert Recipe.parse(tables, "here").compiles(rows=1300) is compiled


def test_a_run_says_why_it_is_compiled_or_not():
    tables = {"kernel": {"name": "hmc", "num_steps": 40}}
    assert Recipe.parse(tables, "here").why_compiled(rows=1300) == (
        "not compiled: some 192,000 are expected, and it pays from 200,000 on"
    )
    assert Recipe.parse(tables, "here", {"run.draws": 200}).why_compiled(rows=1300) == (
        "compiled: some 224,000 are expected, and it pays from 200,000 on"
    )
    assert Recipe.parse(tables, "here", {"run.compile": "always"}).why_compiled(rows=1300) == (
        "compiled, as run.compile = always asks"
    )


def test_one_chain_alone_is_fine_where_it_needs_no_other():
    for name in ("hmc", "nuts", "mclmc"):
        assert Recipe.parse({"kernel": {"name": name}}, "here", {"run.chains": 1}).run.chains == 1
    blocks = {"run": {"chains": 10, "block": 4}}
    assert Recipe.parse({"kernel": {"name": "chees"}, **blocks}, "here").run.block == 4


def test_every_recipe_is_listed_in_the_docs():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "howto" / "samplers.md").read_text(encoding="utf-8")
    names = [path.name for path in (root / "inference").glob("*.toml")]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in page] == []
