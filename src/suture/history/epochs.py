"""Rows of a log → one row per epoch.

Where epochs begin is taken, in this order, from: a column with epochs (whole or fractional, counted from 0 or 1;
blanks take the epoch of the next row that has one); ``steps_per_epoch``; a batch or step number that starts again;
held-out accuracy that comes at regular steps. Otherwise each row is an epoch. What was inferred is said. Epochs at
the end that logged neither lr nor a curve (a test after the training) are left out.

lr, momentum and curvature of an epoch are those at its start, the first that were logged in it, which is how the
paper counts (section 4.1) and what makes a schedule that is set per epoch and the same one set per step agree; an lr
of 0 (the first step of a warm-up) gives way to the first positive one. The loss is the mean over the epoch's rows, a
held-out accuracy the last one, a training accuracy the mean.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.history.columns import is_held_out
from suture.history.labels import check_one_run
from suture.history.log import Log
from suture.history.restarts import last_run
from suture.wording import several

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Numbered:
    """Rows with the epoch each belongs to, counted from 1.

    Attributes:
        rows: in order.
        epoch: (rows,).
        notes: what was decided.
    """

    rows: pd.DataFrame
    epoch: Ints
    notes: list[str] = field(default_factory=list)


def by_epoch(log: Log, steps_per_epoch: int | None = None) -> tuple[pd.DataFrame, list[str]]:
    """One row per epoch, and what is to be said about how rows became epochs.

    Raises:
        DataError: the rows go back and forth, or a column of words tells several runs or phases apart.
    """
    numbered = _trained(_numbered(log, steps_per_epoch))
    rows, epoch = numbered.rows, numbered.epoch
    check_one_run(log, rows, epoch)
    sizes = np.unique(epoch, return_counts=True)[1]
    notes = list(numbered.notes)
    held_out = is_held_out(log.names.get("accuracy", "")) if log.held_out is None else log.held_out
    if sizes.max() > 1 and np.median(sizes) == 1 and not log.has("step"):
        notes.append(f"{several(int((sizes > 1).sum()), 'epoch')} logged more than once; the last values are kept")
        return rows.assign(epoch=epoch).groupby("epoch").last().reset_index(), notes
    if sizes.max() > 1:
        notes.append("an epoch has several rows: lr and momentum are those at its start, the loss is the mean over it")
    return _together(rows, epoch, held_out), notes


def _numbered(log: Log, steps_per_epoch: int | None) -> Numbered:
    # An epoch that stays the same (Lightning's, of a stream of data) says nothing.
    if log.has("epoch") and (steps_per_epoch is None or log.rows["epoch"].nunique() > 1):
        numbered = _by_epoch_column(log)
        if steps_per_epoch is not None:
            numbered.notes.append(f"epochs are those of '{log.names['epoch']}', so the steps per epoch were not needed")
        return numbered
    if steps_per_epoch is not None:
        return _by_count(log, steps_per_epoch)
    for role in ("batch", "step"):
        if log.has(role):
            again = _starts_again(_filled(log.values(role)), certain=role == "batch")
            if again is not None:
                return Numbered(log.rows, again, [_begins_again(log, role)])
    return _by_step(log) if log.has("step") else Numbered(log.rows, np.arange(1, len(log.rows) + 1))


def _trained(numbered: Numbered) -> Numbered:
    """Without the epochs at the end in which neither lr nor a curve was logged."""
    rows, epoch = numbered.rows, numbered.epoch
    curves = [role for role in ("loss", "accuracy") if role in rows and rows[role].notna().any()]
    if not curves:  # a log of lr alone may well leave it blank until it changes
        return numbered
    logged = rows[["lr", *curves]].notna().any(axis=1).to_numpy()
    kept = epoch <= epoch[logged].max()
    after = len(np.unique(epoch[~kept]))
    said = f"{several(after, 'epoch')} at the end logged neither lr nor a curve and {_was(after)} left out"
    return Numbered(rows[kept], epoch[kept], [*numbered.notes, *([said] if after else [])])


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


def _by_count(log: Log, steps_per_epoch: int) -> Numbered:
    if not log.has("step"):
        return Numbered(log.rows, np.arange(len(log.rows)) // steps_per_epoch + 1)
    again = _starts_again(_filled(log.values("step")), certain=False)
    if again is not None and np.nanmax(log.values("step")) <= steps_per_epoch:  # no restarts: the length says so
        return Numbered(log.rows, again, [_begins_again(log, "step")])
    order, notes = last_run(_filled(log.values("step")), None, log, "step")
    rows = log.rows.iloc[order]
    step = _filled(rows["step"].to_numpy(float))
    first = min(step.min(), 1)  # steps are counted from 0, or as done
    return Numbered(rows, ((step - first) // steps_per_epoch + 1).astype(np.int64), notes)


def _by_epoch_column(log: Log) -> Numbered:
    step = _filled(log.values("step")) if log.has("step") else None
    order, notes = last_run(_filled(log.values("epoch")), step, log, "epoch", np.isfinite(log.values("epoch")))
    rows = log.rows.iloc[order]
    epoch = _filled(rows["epoch"].to_numpy(float))
    if (epoch % 1).any():
        # 0.5 is the middle of the first epoch; 1.0 ends it, unless the log begins with 0.0, the start of the first.
        # The end of the last epoch begins no further one.
        end = np.ceil(epoch.max() - 1e-9)
        whole = (np.floor(epoch) + 1).clip(max=end) if epoch.min() == 0 else np.ceil(epoch - 1e-9).clip(min=1)
    else:
        whole = epoch + (epoch.min() == 0)
        if epoch.min() == 0:
            notes.append("epochs are counted from 1, which the log counts from 0")
    return Numbered(rows, whole.astype(np.int64), notes)


def _by_step(log: Log) -> Numbered:
    order, notes = last_run(_filled(log.values("step")), None, log, "step")
    rows = log.rows.iloc[order]
    step = _filled(rows["step"].to_numpy(float))
    ends = _regular_ends(rows, step, log)
    if ends is not None:
        every = int(np.median(np.diff(ends)))
        notes.append(
            f"an epoch is taken to end where '{log.names['accuracy']}' was logged, every {every} steps; if it does "
            "not, give the steps per epoch"
        )
        return Numbered(rows, np.searchsorted(ends, step) + 1, notes)
    notes.append("each logged step counts as an epoch; if they are steps of an optimizer, give the steps per epoch")
    if (np.diff(step) == 1).all() and step[0] >= 0:
        return Numbered(rows, (step + (step[0] == 0)).astype(np.int64), notes)
    # Scalars of other steps than those of the learning rate would be epochs without one.
    kept = rows[rows["lr"].notna().to_numpy()] if "lr" in rows and rows["lr"].notna().any() else rows
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} steps without a learning rate were left out")
    return Numbered(kept, np.arange(1, len(kept) + 1), notes)


def _begins_again(log: Log, role: str) -> str:
    return f"an epoch begins where '{log.names[role]}' starts again"


def _starts_again(number: Floats, *, certain: bool) -> Ints | None:
    """Epoch of each row where a number falls back to its start at every epoch; None where it does not.

    A step number that falls back once may also be that of a run which was started anew, so whole epochs must have
    the same length unless it is `certain` what the number counts.
    """
    starts = np.flatnonzero(np.append(True, number[1:] < number[:-1]))
    if len(starts) < 2:
        return np.ones(len(number), np.int64) if certain else None
    lengths = np.diff(np.append(starts, len(number)))
    regular = bool((lengths[:-1] == lengths[0]).all()) and lengths[-1] <= lengths[0]
    if not certain and not (regular and bool((number[starts] == number[0]).all())):
        return None
    return np.cumsum(np.isin(np.arange(len(number)), starts)).astype(np.int64)


def _regular_ends(rows: pd.DataFrame, step: Floats, log: Log) -> Floats | None:
    """Steps at which held-out accuracy was logged, if these are regular and few."""
    if "accuracy" not in rows or not is_held_out(log.names["accuracy"]):
        return None
    ends = np.unique(step[rows["accuracy"].notna().to_numpy()])
    ends = ends[ends > step.min()]  # one before the training ends no epoch
    if len(ends) < 2 or len(rows) < 3 * len(ends):
        return None
    gaps = np.diff(ends)
    return ends if bool((np.abs(gaps - np.median(gaps)) <= 1 + 0.02 * np.median(gaps)).all()) else None


def _together(rows: pd.DataFrame, epoch: Ints, held_out: bool) -> pd.DataFrame:
    """Rows of an epoch as one."""
    groups = rows.reset_index(drop=True).groupby(epoch)
    table = pd.DataFrame({"epoch": np.unique(epoch)}, index=np.unique(epoch))
    if "lr" in rows:
        moving = rows["lr"].where(rows["lr"] > 0).reset_index(drop=True).groupby(epoch).first()
        table["lr"] = moving.fillna(groups["lr"].first())
    for role, how in (("momentum", "first"), ("loss", "mean"), ("accuracy", "last" if held_out else "mean"),
                      ("curvature", "first")):  # fmt: skip
        if role in rows:
            table[role] = groups[role].agg(how)
    return table.reset_index(drop=True)


def _filled(values: Any) -> Floats:
    """Blanks take the next value, those at the end the last one."""
    return np.asarray(pd.Series(values, dtype=float).bfill().ffill().to_numpy(float))
