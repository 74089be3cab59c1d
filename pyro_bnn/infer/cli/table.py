"""Read somebody's table: find out how its file is written."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pyro_bnn.errors import UserError

__all__ = ["Table", "read_table"]

_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
# Words between numbers are read as gaps where they are few, and most of the column is numbers.
_MOST_GAP_WORDS = 3
_MOSTLY = 0.8


class Table(NamedTuple):
    """A table as the model script will read it.

    Attributes
    ----------
    frame : DataFrame
        Every column of the file.
    options : dict
        What `pandas.read_csv` has to be told to read it so.
    remarks : list of str
        What was found out about the file, a sentence each.
    """

    frame: pd.DataFrame
    options: dict[str, Any]
    remarks: list[str]


def read_table(file: Path) -> Table:
    """Read a file of columns, and find out its encoding, separator, decimal mark and gaps.

    Parameters
    ----------
    file : Path
        CSV or the like, with a line of column names; compressed, if pandas knows the ending.

    Raises
    ------
    UserError
        If the file is no such table.
    """
    options: dict[str, Any] = {}
    remarks: list[str] = []
    try:
        encoding = _encoding(file)
        if encoding is not None:
            options["encoding"] = encoding
            remarks.append(f"the file is not UTF-8 and is read as {encoding}")
        header = re.sub(r'"[^"]*"', "", str(_line(file, encoding)))
        separator = max(_SEPARATORS, key=header.count)
        if separator != ",":
            options["sep"] = separator
        frame = pd.read_csv(file, **options)
        if _is_shifted(frame, file, options):
            options["index_col"] = False
            remarks.append("lines end in a separator which that of the names lacks: left out")
            frame = pd.read_csv(file, **options)
        marks, told = _marks(frame, separator)
        if marks:
            options |= marks
            remarks += told
            frame = pd.read_csv(file, **options)
        gaps, told = _gap_words(frame)
        if gaps:
            options["na_values"] = gaps
            frame = pd.read_csv(file, **options)
        remarks += told
    except (
        OSError,
        UnicodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"table {file} cannot be read as CSV: {reason}") from error
    if frame.shape[1] < 2:
        raise UserError(f"table {file} has one column: it needs features and a target")
    numbers = [str(name) for name in frame.columns if _is_number(str(name))]
    if 2 * len(numbers) > frame.shape[1]:
        remarks.append(
            f"most column names are numbers ({', '.join(numbers[:3])}): if the first line holds "
            "data, put a line of names above it"
        )
    return Table(frame, options, remarks)


def _encoding(file: Path) -> str | None:
    """Return the encoding to name to pandas; None for UTF-8, with a byte order mark or not."""
    if file.is_dir():
        raise UserError(f"table {file} is a folder: name the CSV file in it")
    with file.open("rb") as opened:
        head = opened.read(4)
    if head == b"PK\x03\x04" and file.suffix != ".zip":
        raise UserError(f"table {file} is no text but looks like a workbook: save it as CSV")
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "utf-16"
    try:
        _line(file, None, nrows=None)
    except UnicodeDecodeError:
        _line(file, "cp1252", nrows=None)
        return "cp1252"
    return None


def _line(file: Path, encoding: str | None, nrows: int | None = 1) -> Any:
    """Return the first line that is not blank, decoding it alone or the whole file."""
    read = pd.read_csv(
        file,
        sep="\x1f",
        header=None,
        nrows=nrows,
        quoting=csv.QUOTE_NONE,
        dtype=str,
        encoding=encoding,
    )
    return read.iat[0, 0]


def _is_shifted(frame: pd.DataFrame, file: Path, options: dict[str, Any]) -> bool:
    """Whether pandas took the first column for names of rows: each line has one field too many.

    The last column is empty then, unless rows do have names.
    """
    if not len(frame) or not frame.iloc[:, -1].isna().all():
        return False
    return bool(pd.read_csv(file, index_col=False, **options).iloc[:, -1].notna().any())


def _marks(frame: pd.DataFrame, separator: str) -> tuple[dict[str, str], list[str]]:
    """Find the decimal and the thousands mark of columns that pandas took for words."""
    for name in frame.select_dtypes(exclude=["number", "bool"]):
        words = frame[name].dropna().astype(str).str.strip()
        marked = words[words.str.contains(",", regex=False)]
        if not len(marked):
            continue
        plain = words.drop(marked.index)
        others_are_numbers = plain.map(_is_number).mean() >= _MOSTLY if len(plain) else True
        if separator != "," and marked.str.fullmatch(_DECIMAL_COMMA).all() and others_are_numbers:
            return {"decimal": ","}, [f"commas are read as decimal marks, as in '{marked.iloc[0]}'"]
        if separator == "," and marked.str.fullmatch(_THOUSANDS).all() and others_are_numbers:
            return {"thousands": ","}, [
                f"commas in numbers are read as thousands separators, as in '{marked.iloc[0]}'"
            ]
    return {}, []


def _gap_words(frame: pd.DataFrame) -> tuple[dict[str, list[str]], list[str]]:
    """Find words such as ``?`` that stand for gaps, in columns that are numbers otherwise."""
    gaps: dict[str, list[str]] = {}
    remarks = []
    for name in frame.select_dtypes(exclude=["number", "bool"]):
        words = frame[name].dropna().astype(str).str.strip()
        odd = words[~words.map(_is_number)]
        if not len(odd) or len(odd) > (1 - _MOSTLY) * len(words):
            continue
        distinct = sorted(odd.unique())
        if len(distinct) <= _MOST_GAP_WORDS and not any(re.search(r"\d", w) for w in distinct):
            gaps[str(name)] = distinct
            named = ", ".join(f"'{word}'" for word in distinct)
            remarks.append(f"{named} in column '{name}' is read as a gap")
        else:
            remarks.append(
                f"column '{name}' holds numbers, but not in {len(odd):,} of {len(words):,} rows "
                f"(such as '{distinct[0]}'), and so is taken for words: mend it in the table"
            )
    return gaps, remarks


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
