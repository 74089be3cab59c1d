"""``pyro-bnn new``: a folder to start from, around a table of one's own or one that ships."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pyro_bnn.errors import UserError

__all__ = ["Started", "start_project"]

# Numbers with more distinct values than this are taken for a quantity, fewer for classes.
_MOST_CLASSES = 20
# A column of more distinct words than this looks like names, each of which would be a feature.
_MOST_WORDS = 50
_FEWEST_ROWS = 5
_SEPARATORS = (";", "\t", "|")


class Started(NamedTuple):
    """What a project was started with.

    Attributes
    ----------
    task : str
        ``"regression"`` or ``"classification"``: words, truth values and whole numbers of few
        distinct values are classes.
    table : str
        Rows, features and classes in words.
    remarks : list of str
        What is worth a look, a sentence each.
    """

    task: str
    table: str
    remarks: list[str]


def start_project(folder: Path, table: Path | None, target: str | None) -> Started:
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
    Started
        What was made of the table.

    Raises
    ------
    UserError
        If the folder has files of these names, or the table cannot be read, has no such column, or
        nothing to learn from.
    """
    taken = [name for name in ("model.py", "recipe.toml", "README.md") if (folder / name).exists()]
    if taken:
        raise UserError(f"{folder} already has a {taken[0]}: name a new folder")
    source = folder / "data.csv" if table is None else table
    frame, separator = (_shipped_table(), ",") if table is None else _read(table)
    target = str(frame.columns[-1]) if target is None else target
    if target not in frame.columns:
        raise UserError(
            f"{source} has no column '{target}'; it has {', '.join(map(str, frame.columns))}"
        )
    started = _judged(frame, target, source)
    folder.mkdir(parents=True, exist_ok=True)
    if table is None:
        frame.to_csv(source, index=False)
    starter = files("pyro_bnn.infer.cli") / "starter"
    script = (starter / f"{started.task}.py").read_text(encoding="utf-8")
    # The run keeps a copy of the script elsewhere: the path must not depend on where it lies.
    script = script.replace('TABLE = "data.csv"', f"TABLE = {str(source.resolve())!r}")
    script = script.replace('TARGET = "target"', f"TARGET = {target!r}")
    script = script.replace('SEPARATOR = ","', f"SEPARATOR = {separator!r}")
    (folder / "model.py").write_text(script, encoding="utf-8")
    for name in ("recipe.toml", "README.md"):
        text = (starter / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    return started


def _judged(frame: pd.DataFrame, target: str, source: Path) -> Started:
    """Look at a table as the script will, and refuse what cannot be learnt from."""
    kept = frame.dropna(axis="columns", how="all")
    if len(frame) and target not in kept:
        raise UserError(f"column '{target}' of {source} is empty: name another --target")
    whole = kept.dropna()
    if len(whole) < _FEWEST_ROWS:
        gaps = kept.isna().sum().sort_values(ascending=False)
        most = f": column '{gaps.index[0]}' has {gaps.iloc[0]:,}" if gaps.any() else ""
        raise UserError(
            f"table {source} has {len(whole)} of {len(frame):,} rows without a gap{most}; fill the "
            f"gaps or leave columns out, until {_FEWEST_ROWS} rows or more are whole"
        )
    for name in whole.select_dtypes("number"):
        if not np.isfinite(whole[name]).all():
            raise UserError(
                f"column '{name}' of {source} has infinite values: leave out their rows, or "
                "put finite ones in their place"
            )
    values = whole[target].nunique()
    if values < 2:
        raise UserError(
            f"column '{target}' of {source} has the same value in every whole row: name another "
            "--target"
        )
    task = "classification" if _is_classes(whole[target]) else "regression"
    features = whole.drop(columns=target)
    width = pd.get_dummies(features).shape[1]
    told = f"{len(whole):,} rows, {width:,} features"
    told += f", {values:,} classes" if task == "classification" else ""
    remarks = []
    if task == "regression":
        remarks.append(
            f"scores and predictions are in standard deviations of '{target}': "
            f"{whole[target].std():,.5g}"
        )
    if len(whole) < len(frame):
        remarks.append(f"rows with gaps that are left out: {len(frame) - len(whole):,}")
    if empty := [str(name) for name in frame.columns if name not in kept]:
        remarks.append(f"empty columns are left out: {', '.join(empty)}")
    for name in features.select_dtypes(exclude=["number", "bool"]):
        words = features[name].nunique()
        if words > _MOST_WORDS:
            remarks.append(
                f"column '{name}' has {words:,} distinct words, each a feature: if they are names "
                "or dates, drop it in model.py"
            )
    return Started(task, told, remarks)


def _shipped_table() -> pd.DataFrame:
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    frame: pd.DataFrame = features.assign(progression=target)
    return frame


def _read(table: Path) -> tuple[pd.DataFrame, str]:
    """Return a table and what separates its columns."""
    separator = ","
    try:
        frame = pd.read_csv(table)
        if frame.shape[1] == 1:
            found = [mark for mark in _SEPARATORS if mark in str(frame.columns[0])]
            separator = found[0] if found else ","
            frame = pd.read_csv(table, sep=separator)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"table {table} cannot be read as CSV: {reason}") from error
    if frame.shape[1] < 2:
        raise UserError(f"table {table} has one column: it needs features and a target")
    return frame, separator


def _is_classes(column: pd.Series) -> bool:
    values = column.dropna()
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return True
    return bool((values == values.round()).all()) and values.nunique() <= _MOST_CLASSES
