"""Logs of training runs → one table: what Scan reads."""

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from suture.errors import DataError, MissingFileError

NAMES = {
    "epoch": ("epoch",),
    "lr": ("lr", "learning_rate", "alpha"),
    "momentum": ("momentum", "mu", "beta1"),
    "loss": ("loss", "train_loss"),
    "accuracy": ("accuracy", "acc", "test_accuracy", "val_accuracy", "test_acc", "val_acc"),
}
LARGEST = {"lr": sys.float_info.max, "momentum": 1.0}
KINDS = {"lr": "learning rate", "momentum": "momentum between 0 and 1"}
ASSUMED_MOMENTUM = 0.9  # torch users' usual choice, and the paper's baseline


@dataclass(frozen=True)
class History:
    """A training run, epoch by epoch.

    Attributes:
        table: a row per epoch: epoch (from 1), lr, momentum, and loss, accuracy where they were logged.
        source: where it came from.
        assumed: what was filled in because the log lacks it, in words; None when nothing was.
    """

    table: pd.DataFrame
    source: str
    assumed: str | None = None


def load_history(source: str | Path | pd.DataFrame) -> History:
    """A history from a CSV file or a table with the columns epoch, lr, momentum, loss, accuracy.

    Raises:
        MissingFileError: no such file.
        DataError: there is no learning rate, or a value is no number.
    """
    if isinstance(source, pd.DataFrame):
        return _history(source, "a table")
    path = Path(source)
    if not path.is_file():
        raise MissingFileError(f"there is no training log {path}")
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))  # Excel begins with a mark
        table = pd.DataFrame(rows)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable as CSV ({error})") from error
    return _history(table, str(path))


def _history(table: pd.DataFrame, source: str) -> History:
    lower = {str(column).strip().lower(): column for column in table.columns}
    found = {
        name: lower[next(alias for alias in aliases if alias in lower)]
        for name, aliases in NAMES.items()
        if any(alias in lower for alias in aliases)
    }
    if not len(table):
        raise DataError(f"{source} has no rows; a header with a column 'lr' and a row per epoch are needed")
    if "lr" not in found:
        raise DataError(f"{source} has no column 'lr' but {', '.join(map(str, table.columns))}; scan needs it")
    picked = pd.DataFrame({name: pd.to_numeric(table[c], errors="coerce") for name, c in found.items()})
    for name in [name for name in ("lr", "momentum") if name in picked]:
        wrong = ~picked[name].between(0, LARGEST[name])
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            value = table[found[name]].iloc[row]
            raise DataError(f"{source}: '{found[name]}' of row {row + 1} is '{value}', no {KINDS[name]}")
    if "epoch" not in picked:
        picked.insert(0, "epoch", range(1, len(picked) + 1))
    assumed = None
    if "momentum" not in picked:
        picked["momentum"] = ASSUMED_MOMENTUM
        assumed = f"no momentum was logged; {ASSUMED_MOMENTUM} is assumed"
    return History(picked.reset_index(drop=True), source, assumed)
