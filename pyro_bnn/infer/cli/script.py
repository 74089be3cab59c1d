"""Model scripts: found, imported, and held to their contract."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro_bnn
from pyro_bnn.data import Data
from pyro_bnn.datasets import ROOT_VARIABLE
from pyro_bnn.errors import UserError

__all__ = ["ModelScript", "find_shipped"]


def find_shipped(kind: str, name: str) -> Path | None:
    """Return a file of ``models/`` or ``inference/`` that comes with the package.

    Parameters
    ----------
    kind : str
        ``"models"`` or ``"inference"``.
    name : str
        The file's name.
    """
    package = Path(pyro_bnn.__file__).parent
    # Installed, the files lie inside of the package; in a checkout, beside it.
    for folder in (package / "shipped" / kind, package.parent / kind):
        if (folder / name).is_file():
            return folder / name
    return None


@dataclass(frozen=True)
class ModelScript:
    """An imported model script.

    Attributes
    ----------
    path : Path
        Where it was found.
    text : str
        Its source.
    model : callable
        ``model(x, y=None)``.
    data : Data
        What its ``data()`` returned.
    """

    path: Path
    text: str
    model: Callable[..., Any]
    data: Data

    @classmethod
    def load(cls, path: str | Path) -> ModelScript:
        """Import a script and call its ``data()``.

        A ``data(root)`` gets the folder that the environment variable ``PYRO_BNN_DATA`` names.

        Raises
        ------
        UserError
            If the script is missing or not in UTF-8, raises, lacks ``model`` or ``data``, or if
            ``data()`` raises or returns something else than `pyro_bnn.Data`.
        """
        found = _locate(Path(path))
        try:
            text = found.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"model script {path} is not in UTF-8, as the copy that a run keeps is: save it so"
            ) from error
        module = _import(found)
        for name in ("model", "data"):
            if not callable(getattr(module, name, None)):
                raise UserError(
                    f"model script {path} has no function {name}(): a script defines "
                    "model(x, y=None) and data()"
                )
        try:
            data = module.data(**_root(module.data))
        except UserError as error:
            raise UserError(f"model script {path}: data(): {error}") from error
        except (Exception, SystemExit) as error:
            raise UserError(f"model script {path}: data() raised {_short(error)}") from error
        if not isinstance(data, Data):
            raise UserError(
                f"model script {path}: data() returned {type(data).__name__}, it has to return "
                "pyro_bnn.Data(train=Split(x, y), test=Split(x, y))"
            )
        return cls(found, text, module.model, data)


def name_of(script: Path) -> str:
    """Return what a model is called: as its file, or as the folder of a file ``model.py``.

    Examples
    --------
    >>> name_of(Path("models/digits_mlp.py")), name_of(Path("wine/model.py"))
    ('digits_mlp', 'wine')
    """
    return script.stem if script.name != "model.py" else script.resolve().parent.name


def _locate(path: Path) -> Path:
    if path.is_file():
        return path
    name = path.name if path.suffix == ".py" else f"{path.name}.py"
    shipped = find_shipped("models", name) if path.parent.name in ("", "models") else None
    if shipped is None:
        raise UserError(f"there is no model script {path}: give the path of a Python file")
    return shipped


def _import(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"pyro_bnn_script_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"model script {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # As when Python runs a script: its neighbours can be imported.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"model script {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"model script {path} raised {_short(error)} when imported") from error
    return module


def _root(data: Callable[..., Any]) -> dict[str, str]:
    """Return the folder of data sets as an argument, if it is known and asked for."""
    known = os.environ.get(ROOT_VARIABLE)
    return {"root": known} if known and "root" in inspect.signature(data).parameters else {}


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    line = getattr(error, "lineno", None) or _last_line(error)
    return f"{type(error).__name__} ({lines[0] if lines else 'no message'}) at line {line}"


def _last_line(error: BaseException) -> int:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_lineno if frame is not None else 0
