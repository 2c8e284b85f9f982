"""Cells of a log as numbers: blanks stay blank, what is no number is counted, what would mislead is refused."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from suture.errors import DataError
from suture.history.log import Log

BLANK = {"", "none", "null", "na", "n/a", "<na>", "-", "--"}
_LARGEST = 2.0**53  # whole numbers are exact up to it; nothing larger means anything in a log
# Roles without which nothing can be said, and what they must be.
_NEEDED = {
    "lr": (0.0, _LARGEST, "learning rate"),
    "momentum": (0.0, math.nextafter(1.0, 0.0), "momentum from 0 up to, but not, 1"),
    "epoch": (0.0, _LARGEST, "number of an epoch"),
}


class Rows:
    """Collects rows of numbers by role.

    Args:
        names: role → name in the log.
        source: for messages.
    """

    def __init__(self, names: Mapping[str, str], source: str) -> None:
        self.names, self.source = dict(names), source
        self.optimizer: str | None = None
        self._columns = {role: array("d") for role in names if role != "optimizer"}
        self._odd: dict[str, tuple[int, str, str]] = {}
        self._count, self._place = 0, ""

    def __len__(self) -> int:
        return self._count

    def add(self, cells: Mapping[str, Any], place: str = "") -> None:
        """Add a row, role → text or number; roles without a cell are blank.

        Args:
            place: where the row stands, for messages; its number by default.

        Raises:
            DataError: a learning rate, momentum or epoch is no such thing.
        """
        self._count += 1
        self._place = place or f"row {self._count}"
        for role, column in self._columns.items():
            cell = cells.get(role)
            if cell is None or cell == "":
                column.append(math.nan)
            else:
                column.append(self._number(role, cell))
        name = str(cells.get("optimizer") or "").strip()
        if name.lower() not in BLANK:
            self.optimizer = name

    def log(self) -> Log:
        """What was collected; what was no number, or an infinite one, is said in the notes."""
        notes = [
            f"{count} of {self._count} values of '{self.names[role]}' cannot be used and "
            f"count{'s' if count == 1 else ''} as missing ({place}: '{text}')"
            for role, (count, place, text) in self._odd.items()
        ]
        table = pd.DataFrame({role: np.array(column, dtype=float) for role, column in self._columns.items()})
        return Log(table, self.source, self.names, notes=notes, optimizer=self.optimizer)

    def _number(self, role: str, cell: Any) -> float:
        value = number(cell)
        if role not in _NEEDED:
            return value if value is not None and abs(value) <= _LARGEST else self._missing(role, cell)
        if value is None and str(cell).strip().lower() not in BLANK:
            raise self._refusal(role, cell)
        if value is None or math.isnan(value):
            return math.nan
        low, high, _ = _NEEDED[role]
        if not low <= value <= high:
            raise self._refusal(role, cell)
        return value

    def _missing(self, role: str, cell: Any) -> float:
        if str(cell).strip().lower() not in BLANK:
            count, place, text = self._odd.get(role, (0, self._place, _shown(cell)))
            self._odd[role] = (count + 1, place, text)
        return math.nan

    def _refusal(self, role: str, cell: Any) -> DataError:
        kind = _NEEDED[role][2]
        return DataError(f"{self.source}: '{self.names[role]}' of {self._place} is '{_shown(cell)}', no {kind}")


def number(cell: Any) -> float | None:
    """A number, or None; "95.3 %" is 0.953, and "[0.1]", a list of one param group, 0.1."""
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        text = str(cell).strip()
    if text.startswith("[") and text.endswith("]") and not text.startswith("[["):
        return number(text[1:-1])
    if not text.endswith("%"):
        return None
    try:
        return float(text[:-1]) / 100
    except ValueError:
        return None


def _shown(cell: Any) -> str:
    text = str(cell).strip()
    return text if len(text) <= 40 else text[:37] + "…"
