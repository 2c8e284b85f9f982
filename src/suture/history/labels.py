"""Columns of words that no role took: they tell rows of several runs or phases apart."""

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.errors import DataError
from suture.history.cells import BLANK, number
from suture.history.log import Log

Words = NDArray[np.object_]
_MOST = 20  # different words; a column with more holds times or remarks
_ANSWERS = {"true", "false", "yes", "no"}  # say something about a row, and name no run


class Labels:
    """Collects columns of a few words, row by row; a column that holds a number is given up.

    Args:
        names: columns without a role.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._words: dict[str, dict[str, int]] = {name: {} for name in sorted(names)}
        self._rows = {name: array("b") for name in self._words}

    @property
    def names(self) -> list[str]:
        """Columns that were not given up."""
        return list(self._words)

    def add(self, cells: Mapping[str, Any]) -> None:
        """Add a row, name → text or anything."""
        for name in list(self._words):
            known, word = self._words[name], _word(cells.get(name))
            if word is None or (word not in known and len(known) > _MOST):
                del self._words[name], self._rows[name]
            else:
                self._rows[name].append(known.setdefault(word, len(known)))

    def columns(self) -> dict[str, Words]:
        """Name → (rows,) words, of columns with several; "" where a row has none."""
        return {
            name: np.array(list(known), dtype=object)[np.array(self._rows[name], dtype=int)]
            for name, known in self._words.items()
            if len(known.keys() - {""}) > 1
        }


def check_one_run(log: Log, rows: pd.DataFrame, epoch: NDArray[np.int64]) -> None:
    """See that no words stand beside each other, epoch after epoch, for the same curve (or lr, without curves).

    Args:
        rows: of the log, those that count; their index says which.
        epoch: (rows,).

    Raises:
        DataError: they do, so these are several runs, or phases whose losses are not to be averaged.
    """
    roles = [role for role in ("loss", "accuracy") if log.has(role)] or ["lr"]
    for name, words in log.labels.items():
        for role in roles:
            logged = rows[role].notna().to_numpy() & (words[rows.index] != "")
            seen = pd.crosstab(epoch[logged], words[rows.index][logged]) > 0
            usual = [word for word in seen.columns if seen[word].sum() >= max(2, len(seen) / 2)]
            if len(usual) > 1 and not (beside := seen.index[seen[usual].sum(axis=1) > 1]).empty:
                raise DataError(
                    f"{log.source}: '{name}' is {' and '.join(repr(word) for word in usual[:3])} in the same epochs "
                    f"(first {beside[0]}), so this is no log of one run; split it by '{name}' and scan a part"
                )


def _word(cell: Any) -> str | None:
    """The word in a cell, "" for a blank; None for what names no run, such as a number, a time or 12/391."""
    text = str(cell).strip() if cell is not None else ""
    if text.lower() in BLANK or text.lower() == "nan":
        return ""
    named = text[0].isalpha() and text.lower() not in _ANSWERS and number(text) is None
    return text if named and len(text) <= 100 else None
