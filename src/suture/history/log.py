"""What readers give (a Log, as it was written) and what the package gives (a History, epoch by epoch)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suture.registry import Registry
from suture.rundir import fingerprint


@dataclass(frozen=True)
class History:
    """A training run, epoch by epoch.

    Attributes:
        table: a row per epoch: epoch (from 1, increasing), lr, momentum, and loss, accuracy (a share), curvature
            where they were logged; NaN where an epoch lacks one.
        source: where it came from.
        assumed: what was filled in because the log lacks it, in words; None when nothing was.
        notes: what was mended, left out or inferred, in words.
        columns: role → name in the log, such as ``{"accuracy": "val_acc"}``.
        optimizer: its name, where the log, its reader or the user says it.
        preconditioned: whether it rescales the gradient (the Adam family), so that curvature 1 means nothing.
    """

    table: pd.DataFrame
    source: str
    assumed: str | None = None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    optimizer: str | None = None
    preconditioned: bool = False

    @property
    def fingerprint(self) -> str:
        """sha256 of everything a result can depend on, but for where the log lies."""
        said = [self.assumed, self.notes, sorted(self.columns.items()), self.optimizer, self.preconditioned]
        return fingerprint(self.table.to_csv(), said)


@dataclass
class Log:
    """A log as it was written.

    Attributes:
        rows: a column of floats per role (see ``columns.ROLES``), in the order of the file; NaN where a row has none.
        source: where it came from.
        names: role → name in the log.
        notes: what the reader has to say, in words.
        optimizer: its name, where the log says it.
        usual_optimizer: the default of the tool that wrote the log, for a log that does not say.
        preconditioned: whether it is one that rescales the gradient; None to go by its name.
        held_out: whether accuracy was measured on held-out data, so that the last one of an epoch counts and not
            the mean; None to go by its name.
        labels: name → (rows,) words, of columns without a role that hold a few different ones, such as run or phase.
    """

    rows: pd.DataFrame
    source: str
    names: dict[str, str]
    notes: list[str] = field(default_factory=list)
    optimizer: str | None = None
    usual_optimizer: str | None = None
    preconditioned: bool | None = None
    held_out: bool | None = None
    labels: Mapping[str, np.ndarray[Any, np.dtype[np.object_]]] = field(default_factory=dict)

    def has(self, role: str) -> bool:
        """Whether some row has a value."""
        return role in self.rows and bool(self.rows[role].notna().any())

    def values(self, role: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values of a role, (rows,); NaN where there are none."""
        if role not in self.rows:
            return np.full(len(self.rows), np.nan)
        return self.rows[role].to_numpy(float)


@dataclass(frozen=True)
class Reader:
    """One kind of log.

    Attributes:
        find: the log that is meant by a path (which exists), or None when it is not this kind's.
        read: the log found, with the user's choice of columns (role → name).
        looks_for: what it looks for in a directory, for a message.
    """

    find: Callable[[Path], Path | None]
    read: Callable[[Path, Mapping[str, str]], Log]
    looks_for: str


READERS: Registry[Reader] = Registry("log reader")
