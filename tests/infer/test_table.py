"""How somebody's table is read: as it was meant, and with a word about what was guessed."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from pyro_bnn.errors import UserError
from pyro_bnn.infer.cli.table import read_table

MEANT = pd.DataFrame(
    {
        "größe": [1.5, 2.25, 1250.5, 3.0, 0.125, 7.0],
        "colour": ["red", "blue, dark", "red", "red", "blue, dark", "red"],
        "n": [1, 2, 3, 4, 5, 6],
    }
)


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ({}, {}),
        ({"encoding": "utf-8-sig"}, {}),
        ({"sep": "\t"}, {"sep": "\t"}),
        ({"sep": ";", "decimal": ","}, {"sep": ";", "decimal": ","}),
        ({"sep": "|"}, {"sep": "|"}),
        ({"encoding": "utf-16"}, {"encoding": "utf-16"}),
        ({"encoding": "cp1252", "sep": ";"}, {"encoding": "cp1252", "sep": ";"}),
    ],
    ids=["plain", "byte-order-mark", "tabs", "decimal-commas", "bars", "utf-16", "windows"],
)
def test_a_table_is_read_as_it_was_meant(tmp_path, written, options):
    MEANT.to_csv(tmp_path / "some.csv", index=False, **written)
    found = read_table(tmp_path / "some.csv")
    pd.testing.assert_frame_equal(found.frame, MEANT)
    assert found.options == options
    # What was guessed and could be wrong is told; a separator shows in the number of columns.
    assert len(found.remarks) == len(options.keys() - {"sep"})


def test_a_packed_table_is_read(tmp_path):
    with gzip.open(tmp_path / "some.csv.gz", "wt", encoding="utf-8") as packed:
        packed.write(MEANT.to_csv(index=False))
    pd.testing.assert_frame_equal(read_table(tmp_path / "some.csv.gz").frame, MEANT)


def test_names_with_commas_do_not_hide_the_separator(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('"a, b, c";"d"\n1;2\n3;4\n', encoding="utf-8")
    assert read_table(path).frame.columns.tolist() == ["a, b, c", "d"]


def test_thousands_separators_are_not_words(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('x,y\n1,"1,234"\n2,"12,345,678.5"\n3,7\n', encoding="utf-8")
    found = read_table(path)
    assert found.frame["y"].tolist() == [1234.0, 12345678.5, 7.0]
    assert found.remarks == ["commas in numbers are read as thousands separators, as in '1,234'"]


def test_question_marks_between_numbers_are_gaps_and_other_words_are_told(tmp_path):
    path = tmp_path / "some.csv"
    rows = [
        f"{'?' if k == 3 else k},{'80+' if k == 5 else k},{'?' if k % 2 else 'yes'}"
        for k in range(10)
    ]
    path.write_text("\n".join(["a,age,answer", *rows]) + "\n", encoding="utf-8")
    found = read_table(path)
    assert found.options == {"na_values": {"a": ["?"]}}
    assert found.frame["answer"].notna().all()
    assert found.frame["a"].isna().tolist() == [k == 3 for k in range(10)]
    assert found.remarks == [
        "'?' in column 'a' is read as a gap",
        "column 'age' holds numbers, but not in 1 of 10 rows (such as '80+'), and so is taken for "
        "words: mend it in the table",
    ]


def test_a_separator_at_the_end_of_each_line_shifts_no_column(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("x,y,z\n" + "".join(f"{k},{10 * k},{k}.5,\n" for k in range(6)))
    found = read_table(path)
    assert found.frame["x"].tolist() == list(range(6))
    assert found.frame["z"].tolist() == [k + 0.5 for k in range(6)]
    assert found.options == {"index_col": False}
    assert found.remarks == ["lines end in a separator which that of the names lacks: left out"]
    # Rows that have names, as R writes them, and a column that is empty.
    path.write_text("x,y\n" + "".join(f"row{k},{k},{2 * k}\n" for k in range(6)))
    assert read_table(path).frame["x"].tolist() == list(range(6))
    path.write_text("x,y\n" + "".join(f"{k},\n" for k in range(6)))
    assert read_table(path).options == {}


def test_a_table_without_names_is_remarked_on(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("5.1,3.5,setosa\n4.9,3.0,setosa\n", encoding="utf-8")
    assert read_table(path).remarks == [
        "most column names are numbers (5.1, 3.5): if the first line holds data, put a line of "
        "names above it"
    ]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "looks like a workbook: save it as CSV"),
        (b"", "cannot be read as CSV: No columns"),
        (b"\x81\x8d\xff\x00", "cannot be read as CSV"),
    ],
    ids=["workbook", "empty", "no-text"],
)
def test_what_is_no_table_is_said_to_be_none(tmp_path, content, part):
    path = tmp_path / "some.xlsx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=part):
        read_table(path)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder: name the CSV file in it"):
        read_table(tmp_path)
