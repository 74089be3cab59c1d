"""The manifest of a collection: a line for each member, in files that one writer each appends to.

A file of a writer is replaced as a whole with every line that it gains, by a rename; so a reader
sees whole lines, no writer waits for another, and no lock has to work across a network. After
`LINES` lines a writer begins its next file, so that the replacing stays cheap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyro_bnn.trace.atomic import replacing

__all__ = ["Record", "append_record", "manifest_records"]

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What can name a member or a writer: the name of a file, in no other folder."""

FOLDER = "manifest"
LINES = 256


@dataclass(frozen=True)
class Record:
    """What the manifest says of a member.

    Attributes
    ----------
    name : str
        The member; its file is ``members/<name>.safetensors``.
    sha256 : str
        Of the file, in hexadecimal digits.
    size : int
        Bytes of the file.
    seed : int or None
        Of its training.
    recipe : mapping
        How it was trained: a recipe's tables, or whatever the writer says.
    metrics : mapping of str to float
        What is known of its quality.
    """

    name: str
    sha256: str
    size: int
    seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def append_record(directory: Path, writer: str, records: list[Record]) -> None:
    """Write the newest line of a writer, the last of all that it has written, to the disk."""
    part = (len(records) - 1) // LINES
    lines = [json.dumps(asdict(record)) for record in records[part * LINES :]]
    with replacing(directory / FOLDER / f"{writer}-{part:04d}.jsonl") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def manifest_records(directory: Path) -> Iterator[tuple[str, Record | None]]:
    """Run through the lines of all writers.

    Yields
    ------
    where : str
        File and line.
    record : Record or None
        None if the line cannot be read.
    """
    for path in sorted((directory / FOLDER).glob("[!.]*.jsonl")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.name}, line {number}", _parsed(line)


def _parsed(line: str) -> Record | None:
    try:
        record = Record(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    good = (
        isinstance(record.name, str)
        and NAME.fullmatch(record.name) is not None
        and isinstance(record.sha256, str)
        and type(record.size) is int
        and (record.seed is None or type(record.seed) is int)
        and isinstance(record.recipe, dict)
        and isinstance(record.metrics, dict)
        and all(type(value) in (int, float) for value in record.metrics.values())
    )
    return record if good else None
