"""From the words of the command line to a model script, a recipe and a run directory."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.host import threads_to_use
from pyro_bnn.infer.cli.rundir import RunDirectory, default_out
from pyro_bnn.infer.cli.script import ModelScript, find_shipped
from pyro_bnn.infer.recipe import Recipe

__all__ = ["DEFAULT_MODEL", "assignment", "chosen_run"]

DEFAULT_MODEL = "models/digits_mlp.py"
_DEFAULT_RECIPE = "chees.toml"
_BLOCK = 8
"""Chains or members of a block where the recipe does not say."""


def chosen_run(
    model: Path | None,
    recipe_file: Path | None,
    overrides: dict[str, Any],
    out: Path | None,
    *,
    blocks: bool,
    resume: bool,
) -> tuple[ModelScript, Recipe, RunDirectory]:
    """Return the script, the recipe and the directory that the command line asks for.

    Parameters
    ----------
    model : Path, optional
        The model script; that of the run if it is resumed, else the default.
    recipe_file : Path, optional
        The recipe; the default, or that of the run, where it is missing.
    overrides : dict
        Dotted keys to values.
    out : Path, optional
        The run directory; a new one by default.
    blocks : bool
        Whether a scheduler is to compute blocks of chains.
    resume : bool
        Whether to go on with the run in `out`.

    Raises
    ------
    UserError
        If any of this cannot be had, or a resumed run is not the one that was started.
    """
    if resume and out is None:
        raise UserError("--resume needs the directory of the run: name it with --out")
    run = RunDirectory(out) if out is not None else None
    if resume and run is not None:
        script = ModelScript.load(model or _script_of(run))
        asked = _requested(recipe_file, overrides, run.recorded_recipe())
        recipe = run.resumed_recipe(asked, script)
    else:
        script = ModelScript.load(model or DEFAULT_MODEL)
        recipe = _requested(recipe_file, overrides, None)
        chosen: dict[str, Any] = {}
        if recipe.run.threads == 0:
            chosen["run.threads"] = 1 if blocks else threads_to_use()
        if recipe.run.block is None and blocks:
            chosen["run.block"] = min(_BLOCK, recipe.run.chains)
        recipe = _requested(recipe_file, overrides | chosen, None)
        run = run or RunDirectory(default_out(script.path, recipe.method))
    if blocks and recipe.run.block is None:
        raise UserError(
            f"the run in {run.path} was not started in blocks: resume it without --scheduler"
        )
    return script, recipe, run


def assignment(text: str) -> tuple[str, Any]:
    """Split the ``KEY=VALUE`` of ``--set``; the value is TOML, or text if it is not TOML.

    Raises
    ------
    UserError
        If there is no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: give it as KEY=VALUE, for example run.draws=300")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()


def _requested(path: Path | None, overrides: dict[str, Any], recorded: Recipe | None) -> Recipe:
    """Return the recipe that the command line asks for; a resumed run's own where it is silent."""
    if recorded is not None and path is None:
        return Recipe.parse(recorded.tables(), "the command line", overrides)
    if path is not None and not path.is_file():
        path = find_shipped("inference", path.name) or path
    if path is None:
        path = find_shipped("inference", _DEFAULT_RECIPE)
    assert path is not None
    return Recipe.read(path, overrides)


def _script_of(run: RunDirectory) -> Path:
    if not run.model_file.is_file():
        raise UserError(f"{run.path} holds no run to resume: name one with --out")
    return run.script_file()
