"""``pyro-bnn new``: a folder to start from, around a table of one's own or one that ships."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.table import Table, read_table

__all__ = ["Started", "start_project"]

_TASKS = ("classification", "regression")

# Numbers with more distinct values than this are taken for a quantity, fewer for classes.
_MOST_CLASSES = 20
# A column of more distinct words than this looks like names, each of which would be a feature.
_MOST_WORDS = 50
_FEWEST_ROWS = 5
# A class of fewer rows may be missing from one of the splits.
_RARE = 5
# Above this share of one class, accuracy alone says little.
_COMMON = 0.7


class Started(NamedTuple):
    """What a project was started with.

    Attributes
    ----------
    task : str
        ``"regression"`` or ``"classification"``: words, truth values and whole numbers of few
        distinct values are classes.
    table : str
        Rows, features and target in words.
    remarks : list of str
        What is worth a look, a sentence each.
    """

    task: str
    table: str
    remarks: list[str]


def start_project(
    folder: Path, table: Path | None, target: str | None, task: str | None = None
) -> Started:
    """Write a model script, a recipe and a README.

    Parameters
    ----------
    folder : Path
        Where to; made if it is missing.
    table : Path, optional
        A CSV file with a line of column names; scikit-learn's diabetes table by default.
    target : str, optional
        The column to predict; the last one by default.
    task : str, optional
        ``"regression"`` or ``"classification"``, where the target itself does not tell.

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
    if task not in {None, *_TASKS}:
        raise UserError(f"--task is {' or '.join(_TASKS)}, not '{task}'")
    source = folder / "data.csv" if table is None else table
    frame, options, remarks = (
        Table(_shipped_table(), {}, []) if table is None else read_table(table)
    )
    target = str(frame.columns[-1]) if target is None else target
    if target not in frame.columns:
        raise UserError(
            f"{source} has no column '{target}'; it has {', '.join(map(str, frame.columns))}"
        )
    dropped, told = _no_features(frame.drop(columns=target))
    started = _judged(frame.drop(columns=dropped), target, source, task)
    folder.mkdir(parents=True, exist_ok=True)
    if table is None:
        frame.to_csv(source, index=False)
    starter = files("pyro_bnn.infer.cli") / "starter"
    script = (starter / f"{started.task}.py").read_text(encoding="utf-8")
    # The run keeps a copy of the script elsewhere: the path must not depend on where it lies.
    for line, value in (
        ('TABLE = "data.csv"', str(source.resolve())),
        ('TARGET = "target"', target),
        ("READ = {}", options),
        ("DROP = []", dropped),
    ):
        name = line.partition(" ")[0]
        script = script.replace(line, f"{name} = {value!r}")
    (folder / "model.py").write_text(script, encoding="utf-8")
    for name in ("recipe.toml", "README.md"):
        text = (starter / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    return started._replace(remarks=[*remarks, *told, *started.remarks])


def _no_features(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Find row numbers and columns of names or dates, and say so."""
    dropped, remarks = [], []
    for name in frame.columns:
        values = frame[name].dropna()
        if str(name).startswith("Unnamed:") and _counts(values):
            dropped.append(str(name))
            remarks.append(
                f"column {list(frame.columns).index(name) + 1}, without a name, numbers the rows "
                "and is left out: DROP in model.py"
            )
        elif pd.api.types.is_numeric_dtype(values) or not len(values):
            continue
        elif values.nunique() > max(_MOST_WORDS, len(values) / 2):
            dropped.append(str(name))
            remarks.append(
                f"column '{name}' has {values.nunique():,} distinct words, names or dates, and is "
                "left out: DROP in model.py"
            )
        elif values.nunique() > _MOST_WORDS:
            remarks.append(
                f"column '{name}' has {values.nunique():,} distinct words, each a feature: to "
                "leave it out, add it to DROP in model.py"
            )
    return dropped, remarks


def _counts(values: pd.Series) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    if not pd.api.types.is_numeric_dtype(values) or not len(values):
        return False
    return bool((values.diff().iloc[1:] == 1).all()) and values.iloc[0] in {0, 1}


def _judged(frame: pd.DataFrame, target: str, source: Path, task: str | None) -> Started:
    """Look at a table as the script will, and refuse what cannot be learnt from."""
    kept = frame.dropna(axis="columns", how="all")
    if len(frame) and target not in kept:
        raise UserError(f"column '{target}' of {source} is empty: name another --target")
    if len(frame) and kept.shape[1] < 2:
        raise UserError(f"table {source} has no column of features beside '{target}'")
    whole = kept.dropna()
    gaps = kept.isna().sum().sort_values(ascending=False)
    if len(whole) < _FEWEST_ROWS:
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
    task = _task(whole[target], source, task)
    width = pd.get_dummies(whole.drop(columns=target)).shape[1]
    told = f"{len(whole):,} rows, {width:,} feature{'' if width == 1 else 's'}"
    if task == "classification":
        told += f", {values:,} classes of '{target}'"
        remarks = _remarks_on_classes(whole[target])
    else:
        told += f", target '{target}'"
        remarks = [
            f"scores and predictions are in standard deviations of '{target}': "
            f"{whole[target].std():,.5g}"
        ]
    if len(whole) < len(frame):
        remarks.append(
            f"rows with gaps that are left out: {len(frame) - len(whole):,} of {len(frame):,} "
            f"(column '{gaps.index[0]}' has {gaps.iloc[0]:,})"
        )
    if empty := [str(name) for name in frame.columns if name not in kept]:
        remarks.append(f"empty columns are left out: {', '.join(empty)}")
    return Started(task, told, remarks)


def _task(column: pd.Series, source: Path, wanted: str | None) -> str:
    numbers = _is_quantity(column)
    if wanted == "regression" and not numbers:
        raise UserError(
            f"column '{column.name}' of {source} holds words, of which there is no regression: "
            "name another --target, or leave --task out"
        )
    whole = numbers and bool((column == column.round()).all())
    if wanted == "classification" or not numbers:
        if 2 * column.nunique() > len(column):
            raise UserError(
                f"column '{column.name}' of {source} has {column.nunique():,} distinct values in "
                f"{len(column):,} rows: too many to be classes; name another --target, or mend "
                "its numbers if it is a quantity"
            )
        return "classification"
    if wanted is not None:
        return wanted
    # Few rows a value: a count or a score rather than a label.
    few = column.nunique() <= min(_MOST_CLASSES, len(column) // 2)
    return "classification" if whole and few else "regression"


def _remarks_on_classes(column: pd.Series) -> list[str]:
    remarks = []
    counts = column.value_counts()
    if _is_quantity(column) and len(counts) > 2:
        remarks.append(
            f"the {len(counts)} whole numbers of '{column.name}' are taken for classes; if they "
            "are a quantity, start anew with --task regression"
        )
    if rare := [f"'{name}'" for name in counts.index[counts < _RARE]]:
        remarks.append(
            f"classes of fewer than {_RARE} rows, which one of the splits may lack: "
            f"{', '.join(rare[:3])}{', ...' if len(rare) > 3 else ''}"
        )
    share = counts.iloc[0] / len(column)
    if share > _COMMON:
        remarks.append(
            f"{100 * share:.0f} % of the rows are '{counts.index[0]}': an accuracy of as much is "
            "reached by always naming it"
        )
    return remarks


def _shipped_table() -> pd.DataFrame:
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    frame: pd.DataFrame = features.assign(progression=target)
    return frame


def _is_quantity(column: pd.Series) -> bool:
    """Whether a column holds numbers, and not truth values."""
    numeric = pd.api.types.is_numeric_dtype(column)
    return numeric and not pd.api.types.is_bool_dtype(column)
