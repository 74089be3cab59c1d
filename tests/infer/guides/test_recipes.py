"""Recipes of guides: shipped ones build their guide, written ones are read back, errors named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyro_bnn import UserError
from pyro_bnn.infer.guides import Ensemble, Training
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.settings import GUIDES

SHIPPED = [
    path
    for path in sorted((Path(__file__).parents[3] / "inference").glob("*.toml"))
    if "[guide]" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_build_their_guide(net, path):
    recipe = Recipe.read(path)
    assert recipe.method == path.stem.replace("_", "-")
    ensemble = recipe.guide.ensemble(net.density, recipe.run.chains)
    assert isinstance(ensemble, Ensemble)
    assert ensemble.size == recipe.run.chains
    assert ensemble.retries == recipe.guide.retries
    guide = ensemble.guide
    values = recipe.guide.model_dump(exclude={"name", "retries", "block", "workers", "start"})
    training = {name: values.pop(name) for name in Training.__dataclass_fields__}
    assert guide.training == Training(**training)
    if "rate" in values:
        values["rates"] = values.pop("rate")
    for name, value in values.items():
        assert getattr(guide, name) == value


def test_every_guide_has_a_recipe():
    assert {Recipe.read(path).method for path in SHIPPED} == set(GUIDES)


@pytest.mark.parametrize("name", GUIDES)
def test_written_out_and_read_back(tmp_path, name):
    recipe = Recipe.parse({"guide": {"name": name, "epochs": 7}}, "here")
    assert recipe.kernel is None
    path = tmp_path / "own.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe


@pytest.mark.parametrize(
    ("tables", "parts"),
    [
        ({"guide": {"name": "vogue"}}, ["guide.name", "the guides are map, swag, mean-field"]),
        ({"guide": {"name": "map", "rank": 3}}, ["guide 'map' has no key 'guide.rank'", "epochs"]),
        (
            {"guide": {"name": "map", "epohcs": 3}},
            ["'guide.epohcs'", "did you mean 'guide.epochs'"],
        ),
        ({"guide": {"name": "map", "optimiser": "lbfgs"}}, ["guide.optimiser", "'adamw'"]),
        ({"guide": {"name": "map", "schedule": "ramp"}}, ["guide.schedule", "'cosine'"]),
        ({"guide": {"name": "map"}, "kernel": {"name": "hmc"}}, ["[kernel] or [guide], not both"]),
    ],
)
def test_what_is_wrong_is_named(tables, parts):
    with pytest.raises(UserError) as caught:
        Recipe.parse(tables, "own.toml")
    for part in parts:
        assert part in str(caught.value)
