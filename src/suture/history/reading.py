"""The door for training logs: find out what it is, read it, and say what had to be mended or assumed."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from suture.errors import DataError, InvalidArgumentError, MissingFileError

# In the order in which a path is offered to them.
from suture.history import huggingface, lightning, tensorboard  # noqa: F401
from suture.history.epochs import by_epoch
from suture.history.family import ASSUMED_MOMENTUM, is_preconditioned
from suture.history.log import READERS, History, Log
from suture.history.tables import frame_log

_CSV = "csv"  # takes any file, so it comes last


def load_history(
    source: str | Path | pd.DataFrame,
    *,
    steps_per_epoch: int | None = None,
    optimizer: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> History:
    """A history from a log: CSV, JSON, TensorBoard, Lightning, Hugging Face, or a table.

    Columns go by their usual names (lr, learning_rate, lr-SGD, train/lr, …). See `suture.history.epochs` for how rows
    become epochs.

    Args:
        source: a file, the directory that a tool logs to, or a table.
        steps_per_epoch: optimizer steps per epoch, where the log counts steps and has no column of epochs.
        optimizer: its name, where the log does not say or is wrong.
        columns: role (lr, momentum, loss, accuracy, curvature, epoch, step, batch) → column or tag, where a name is
            unusual.

    Raises:
        MissingFileError: no such file or directory.
        DataError: there is no learning rate, a value is impossible, or the rows are no one run.
        UnknownNameError: no such column or role.
        InvalidArgumentError: steps_per_epoch is not positive, or a package is missing that reads the file.
    """
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise InvalidArgumentError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
    chosen = columns or {}
    log = frame_log(source, chosen) if isinstance(source, pd.DataFrame) else _read(Path(source), chosen)
    return to_history(log, steps_per_epoch=steps_per_epoch, optimizer=optimizer)


def _read(path: Path, chosen: Mapping[str, str]) -> Log:
    if not path.exists():
        raise MissingFileError(f"there is no training log {path}")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is neither a file nor a directory")
    for name in sorted(READERS, key=lambda name: name == _CSV and path.is_file()):
        found = READERS[name].find(path)
        if found is not None:
            return READERS[name].read(found, chosen)
    sought = ", ".join(reader.looks_for for reader in READERS.values())
    raise MissingFileError(f"there is no training log in {path}{os.sep}, where {sought} were looked for")


def to_history(log: Log, *, steps_per_epoch: int | None = None, optimizer: str | None = None) -> History:
    """A log as a history: epochs, gaps, units, and what must be assumed.

    Raises:
        DataError: there is no learning rate that is positive, or the rows are no one run.
    """
    _check_lr(log)
    table, notes = by_epoch(log, steps_per_epoch)
    if not (table["lr"] > 0).any():
        raise DataError(f"{log.source}: no row that counts has a learning rate ({'; '.join(notes)})")
    notes = log.notes + notes + _fill(table) + _shares(table, log) + _gaps(table)
    name, said = _optimizer(log, optimizer)
    preconditioned = bool(log.preconditioned if optimizer is None and log.preconditioned is not None
                          else is_preconditioned(name or ""))  # fmt: skip
    if "momentum" not in table:
        table.insert(2, "momentum", ASSUMED_MOMENTUM)
        kind = "beta1" if preconditioned else "momentum"
        said.append(f"no {kind} was logged; {ASSUMED_MOMENTUM} is assumed")
    roles = [role for role in ("epoch", "lr", "momentum", "loss", "accuracy", "curvature") if role in table]
    return History(
        table[roles], log.source, "; ".join(said) or None, tuple(notes),
        {role: log.names[role] for role in roles if role in log.names}, name, preconditioned,
    )  # fmt: skip


def _check_lr(log: Log) -> None:
    lr = log.values("lr")
    if not np.isfinite(lr).any():
        raise DataError(f"{log.source}: no row has a learning rate in its column '{log.names['lr']}'")
    if not (lr > 0).any():
        raise DataError(f"{log.source}: the learning rate in '{log.names['lr']}' is 0 throughout; nothing was trained")


def _optimizer(log: Log, given: str | None) -> tuple[str | None, list[str]]:
    """The optimizer's name, and what was assumed about it."""
    name = given or log.optimizer
    if name is None and log.usual_optimizer is not None:
        return log.usual_optimizer, [f"the log names no optimizer; {log.usual_optimizer}, the usual one, is assumed"]
    if name is not None and log.preconditioned is None and is_preconditioned(name) is None:
        return name, [f"'{name}' is not known here; it is taken for SGD with momentum"]
    return name, []


def _fill(table: pd.DataFrame) -> list[str]:
    """Fill hyper-parameters forward in place: they stay until they are set; columns without a value are dropped."""
    notes = []
    total = len(table)
    for role in [role for role in table.columns if not table[role].notna().any()]:
        del table[role]
    for role in ("lr", "momentum", "curvature"):
        if role not in table:
            continue
        logged = int(table[role].notna().sum())
        table[role] = table[role].ffill() if role != "momentum" else table[role].ffill().bfill()
        if int(table[role].notna().sum()) > logged:
            notes.append(f"{role} was logged in {logged} of {total} epochs and is taken to have stayed between")
    for role in ("loss", "accuracy"):
        missing = int(table[role].isna().sum()) if role in table else 0
        if missing:
            notes.append(f"{role} is missing in {missing} of {total} epochs")
    still = int((table["lr"] == 0).sum())
    if still:
        notes.append(f"the learning rate is 0 in {still} of {total} epochs, where nothing moves")
    return notes


def _shares(table: pd.DataFrame, log: Log) -> list[str]:
    """Accuracy as a share, in place; percentages are recognised by values above 1."""
    if "accuracy" not in table:
        return []
    lowest, highest, name = table["accuracy"].min(), table["accuracy"].max(), log.names["accuracy"]
    if lowest < 0 or highest > 100 + 1e-6:
        del table["accuracy"]
        odd = lowest if lowest < 0 else highest
        return [f"'{name}' holds {odd:g}, which is neither a share nor a percentage, and was left out"]
    if highest > 1 + 1e-6:
        table["accuracy"] /= 100
        return [f"'{name}' was taken to be in per cent"]
    return []


def _gaps(table: pd.DataFrame) -> list[str]:
    first, last = int(table["epoch"].iloc[0]), int(table["epoch"].iloc[-1])
    whole = last - first + 1
    return [f"{len(table)} of the epochs {first} to {last} were logged"] if len(table) < whole else []
