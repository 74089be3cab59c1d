"""A run directory: claimed once, recognised when resumed."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.fingerprint import changed, fingerprint
from pyro_bnn.infer.cli.script import ModelScript, name_of
from pyro_bnn.infer.recipe import Recipe
from pyro_bnn.infer.starting import EnsembleStart
from pyro_bnn.trace.atomic import replacing

__all__ = ["FREE", "RunDirectory", "default_out"]

FREE = (("guide", "block"), ("guide", "workers"))
"""What a resumed run may have otherwise: how its members are trained, not which."""

# Before the script's name, in the first line of a run's recipe.
_SCRIPT = "# model: "

_OWN_FILES = ("recipe.toml", "state.safetensors", "segments", "blocks", "trace.nc")

# What may be somebody else's where no copy of the script lies beside it, which is written first.
_REPLACED = ("data.json", "start.json", "summary.json", "report.html")


def default_out(script: Path, kernel: str) -> Path:
    """Name a new directory under ``runs/`` after the script, the method and the time."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name_of(script)}-{kernel}-{now}"


class RunDirectory:
    """The files of one run.

    Parameters
    ----------
    path : Path
        The directory, whether or not it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_file = path / "recipe.toml"
        self.model_file = path / "model.py"
        self.data_file = path / "data.json"
        self.start_file = path / "start.json"
        self.trace_file = path / "trace.nc"
        self.summary_file = path / "summary.json"
        self.report_file = path / "report.html"

    def claim(self, recipe: Recipe, script: ModelScript) -> None:
        """Start a new run here: write down its recipe, its model and what its data are known by.

        Raises
        ------
        UserError
            If the directory holds a run already, or files of others that the run would replace, or
            cannot be written.
        """
        if self.model_file.is_file() and self.model_file.samefile(script.path):
            raise UserError(
                f"{self.path} holds the model script itself, in the place of the copy that a run "
                "keeps: choose another directory with --out"
            )
        # A kill before the last of the files below leaves no recipe: that is no run yet.
        text = script.text.encode("utf-8")
        foreign = self.model_file.is_file() and self.model_file.read_bytes() != text
        if foreign or any((self.path / name).exists() for name in _OWN_FILES):
            raise UserError(
                f"{self.path} already holds a run: go on with it by --resume, or choose another "
                "directory with --out"
            )
        replaced = [name for name in _REPLACED if (self.path / name).exists()]
        if replaced and not self.model_file.is_file():
            raise UserError(
                f"{self.path} has a {replaced[0]}, which a run would replace: choose another "
                "directory with --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self.model_file) as file:
                file.write_bytes(text)
            with replacing(self.data_file) as file:
                file.write_text(json.dumps(fingerprint(script.data)), encoding="utf-8")
            with replacing(self.recipe_file) as file:
                head = f"{_SCRIPT}{script.path.resolve()}"
                file.write_text(f"{head}\n\n{recipe.to_toml()}", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}): choose another directory "
                "with --out"
            ) from error

    def release(self) -> None:
        """Give the directory up again if nothing was saved in it."""
        for folder in (self.path, *self.path.glob("blocks/*")):
            # A training whose process died has not told the state of the run yet.
            if (folder / "state.safetensors").exists() or any(folder.glob("training/*")):
                return
        for file in (self.model_file, self.data_file, self.start_file, self.recipe_file):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.path / "blocks", ignore_errors=True)

    def record_start(self, start: EnsembleStart) -> None:
        """Write down the member of each chain, and which members did not converge."""
        facts = {
            "members": start.members,
            "member_loss": start.loss.tolist(),
            "member_epochs": start.epochs.tolist(),
            "members_not_converged": [m for m, good in enumerate(start.converged) if not good],
        }
        self.start_file.write_text(json.dumps(facts), encoding="utf-8")

    def recorded_start(self) -> dict[str, list[float]]:
        """Return what `record_start` wrote; nothing where chains started from the prior."""
        if not self.start_file.is_file():
            return {}
        facts: dict[str, list[float]] = json.loads(self.start_file.read_text(encoding="utf-8"))
        return facts

    def recorded_script(self) -> Path:
        """Return where the script lay that the run was started with; the run has its text."""
        first, _, _ = self.recipe_file.read_text(encoding="utf-8").partition("\n")
        return Path(first.removeprefix(_SCRIPT))

    def script_file(self) -> Path:
        """Return the script that the run was started with; its copy, if that is gone or changed.

        Beside the original lie the modules that it imports, and what it opens by its own place.
        """
        try:
            original = self.recorded_script()
            text = self.model_file.read_text(encoding="utf-8")
            unchanged = original.read_text(encoding="utf-8") == text
        except (OSError, ValueError):
            return self.model_file
        return original if unchanged else self.model_file

    def recorded_recipe(self) -> Recipe:
        """Return the recipe that the run was started with.

        Raises
        ------
        UserError
            If there is no run here.
        """
        if not self.recipe_file.is_file():
            raise UserError(
                f"{self.path} holds no run to resume: start one without --resume, or name its "
                "directory with --out"
            )
        return Recipe.read(self.recipe_file)

    def resumed_recipe(self, requested: Recipe, script: ModelScript) -> Recipe:
        """Return the recipe to go on with, which is that of the start.

        What does not change the result may differ: how many members are trained at once, and in
        how many processes.

        Raises
        ------
        UserError
            If the model script, its data or a setting differ; names the first that does.
        """
        recorded = self.recorded_recipe().tables()
        asked = requested.tables()
        for table in {**asked, **recorded}:
            values, old = asked.get(table, {}), recorded.get(table, {})
            for name in {**values, **old}:
                value, before = values.get(name), old.get(name)
                # Where a recipe is silent on them they were chosen when the run was started.
                silent = (table, name, value) in (("run", "threads", 0), ("run", "block", None))
                free = (table, name) in FREE
                if value != before and not silent and not free:
                    raise UserError(
                        f"the run in {self.path} was started with {table}.{name} = {before!r}, "
                        f"not {value!r}: resume it unchanged, or start anew in another --out"
                    )
        if script.text != self.model_file.read_text(encoding="utf-8"):
            raise UserError(
                f"model script {script.path} has changed since the run in {self.path} was "
                "started: undo the change, or start anew in another --out"
            )
        self._compare_data(script)
        given = {f"{table}.{name}": asked.get(table, {}).get(name) for table, name in FREE}
        changed = {key: value for key, value in given.items() if value is not None}
        return Recipe.parse(recorded, str(self.recipe_file), changed)

    def _compare_data(self, script: ModelScript) -> None:
        """Refuse other data than those of the start, where the run has a note of them."""
        if not self.data_file.is_file():
            return
        try:
            recorded = json.loads(self.data_file.read_text(encoding="utf-8"))
            name = changed(recorded, fingerprint(script.data))
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self.data_file} is damaged: delete it to resume without a look at the data"
            ) from error
        if name is not None:
            raise UserError(
                f"the data of model script {script.path} have changed since the run in {self.path} "
                f"was started ({name} is another): restore them, or start anew in another --out"
            )
