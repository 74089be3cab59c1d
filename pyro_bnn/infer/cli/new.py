"""``pyro-bnn new``: a folder to start from, around a table of one's own or one that ships."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd

from pyro_bnn.errors import UserError

__all__ = ["start_project"]

# Numbers with more distinct values than this are taken for a quantity, fewer for classes.
_MOST_CLASSES = 20


def start_project(folder: Path, table: Path | None, target: str | None) -> str:
    """Write a model script, a recipe and a README.

    Parameters
    ----------
    folder : Path
        Where to; made if it is missing.
    table : Path, optional
        A CSV file with a line of column names; scikit-learn's diabetes table by default.
    target : str, optional
        The column to predict; the last one by default.

    Returns
    -------
    str
        ``"regression"`` or ``"classification"``: words, truth values and whole numbers of few
        distinct values are classes.

    Raises
    ------
    UserError
        If the folder has files of these names, or the table cannot be read or has no such column.
    """
    taken = [name for name in ("model.py", "recipe.toml", "README.md") if (folder / name).exists()]
    if taken:
        raise UserError(f"{folder} already has a {taken[0]}: name a new folder")
    source = folder / "data.csv" if table is None else table
    frame = _shipped_table() if table is None else _read(table)
    target = str(frame.columns[-1]) if target is None else target
    if target not in frame.columns:
        raise UserError(
            f"{source} has no column '{target}'; it has {', '.join(map(str, frame.columns))}"
        )
    task = "classification" if _is_classes(frame[target]) else "regression"
    folder.mkdir(parents=True, exist_ok=True)
    if table is None:
        frame.to_csv(source, index=False)
    starter = files("pyro_bnn.infer.cli") / "starter"
    script = (starter / f"{task}.py").read_text(encoding="utf-8")
    # The run keeps a copy of the script elsewhere: the path must not depend on where it lies.
    script = script.replace('TABLE = "data.csv"', f"TABLE = {str(source.resolve())!r}")
    script = script.replace('TARGET = "target"', f"TARGET = {target!r}")
    (folder / "model.py").write_text(script, encoding="utf-8")
    for name in ("recipe.toml", "README.md"):
        text = (starter / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    return task


def _shipped_table() -> pd.DataFrame:
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    frame: pd.DataFrame = features.assign(progression=target)
    return frame


def _read(table: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(table)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"table {table} cannot be read as CSV: {reason}") from error
    if frame.shape[1] < 2:
        raise UserError(f"table {table} has one column: it needs features and a target")
    return frame


def _is_classes(column: pd.Series) -> bool:
    values = column.dropna()
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return True
    return bool((values == values.round()).all()) and values.nunique() <= _MOST_CLASSES
