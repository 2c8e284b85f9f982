"""Logs of JSON: an object a line, as a user's own loop or a tracker appends them, or one array or object of columns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suture.errors import DataError
from suture.history.cells import Rows
from suture.history.columns import find_columns
from suture.history.family import described_optimizer
from suture.history.labels import Labels
from suture.history.log import Log
from suture.wording import several

_LONGEST = 1_000_000  # characters of a first line; a row is shorter
_LARGEST = 256 * 1024**2  # bytes of a file that is read as one value

Placed = list[tuple[str, dict[str, Any]]]
"""Rows, each with where it stands in the file."""


def is_lines(path: Path) -> bool:
    """Whether the first line of a file is an object on its own, and not the state of a Hugging Face training."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = _row(next((line for line in iter(lambda: file.readline(_LONGEST), "") if line.strip()), ""))
    return bool(first) and "log_history" not in first


def read_lines(path: Path, chosen: Mapping[str, str]) -> Log:
    """Read a file of JSON lines; what is no object, such as a last line that was cut off, is left out and said.

    Raises:
        DataError: it has no learning rate, or a value cannot be used.
        UnknownNameError: a chosen column does not exist.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [(place, _row(line)) for place, line in enumerate(file, start=1) if line.strip()]
    odd = [place for place, row in lines if not row]
    said = [f"{several(len(odd), 'line')} without a whole JSON object left out (first line {odd[0]})"] if odd else []
    return log_of([(f"line {place}", row) for place, row in lines if row], path, chosen, said)


def whole_rows(path: Path) -> Placed | None:
    """The rows of a file that is one array of objects, or one object of columns, as Keras has its history.

    None where it is something else.
    """
    if path.stat().st_size > _LARGEST:
        return None
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        head = file.read(_LONGEST).lstrip()
        if not head.startswith(("[", "{")):
            return None
        try:
            found = json.loads(head + file.read())
        except (ValueError, RecursionError):
            return None
    if isinstance(found, dict):
        inner = found.get("history")
        found = _of_columns(inner if isinstance(inner, dict) else found)
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        return None
    return [(f"row {place}", row) for place, row in enumerate(found, start=1)]


def _of_columns(columns: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of columns that are lists of one length; what is no list, such as a setting, is left out."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    plain = all(not isinstance(value, list | dict) for values in lists.values() for value in values)
    if not plain or len({len(values) for values in lists.values()}) != 1:
        return None
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def log_of(records: Placed, path: Path, chosen: Mapping[str, str], said: Sequence[str] = ()) -> Log:
    """A log of rows that were read, and what is to be said of those that were not.

    Raises:
        DataError, UnknownNameError: as for `read_lines`.
    """
    source = str(path)
    names = list(dict.fromkeys(name for _, row in records for name in row))
    columns = find_columns(names, chosen, source)
    found, labels = Rows(columns.names, source), Labels(set(names) - set(columns.names.values()))
    for place, row in records:
        found.add({role: row.get(name) for role, name in columns.names.items()}, place)
        labels.add(row)
    if not len(found):
        raise DataError(f"{source} has no rows")
    log = found.log()
    log.notes[:0] = [*columns.notes, *said]
    log.labels = labels.columns()
    log.optimizer = log.optimizer or columns.optimizer or described_optimizer(path.parent)
    return log


def _row(line: str) -> dict[str, Any]:
    """The object of a line; an empty one where there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
