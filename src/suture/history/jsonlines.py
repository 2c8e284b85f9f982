"""Logs of JSON lines: one object per row, as a user's own loop or a tracker appends them."""

import json
from collections.abc import Mapping
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
    source = str(path)
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [(place, _row(line)) for place, line in enumerate(file, start=1) if line.strip()]
    records = [(place, row) for place, row in lines if row]
    names = list(dict.fromkeys(name for _, row in records for name in row))
    columns = find_columns(names, chosen, source)
    found, labels = Rows(columns.names, source), Labels(set(names) - set(columns.names.values()))
    for place, row in records:
        found.add({role: row.get(name) for role, name in columns.names.items()}, f"line {place}")
        labels.add(row)
    if not len(found):
        raise DataError(f"{source} has no rows")
    log = found.log()
    odd = [place for place, row in lines if not row]
    said = [f"{several(len(odd), 'line')} without a whole JSON object left out (first line {odd[0]})"] if odd else []
    log.notes[:0] = columns.notes + said
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
