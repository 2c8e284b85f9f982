"""Scan: the damping regime of every epoch of a training run, and how its curves moved meanwhile.

Paper, sections 3.2 and 4; Tables 4, 5, 6, 14 and 15.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.curves import Motion, Movement, first_reached, held_from, movement
from suture.errors import InvalidArgumentError
from suture.history import History, load_history
from suture.physics import Form, Regime, critical_momentum, regime
from suture.stages.result import Result, Table

if TYPE_CHECKING:
    from suture.training.presets import Recipe

TOLERANCE = 0.05
THRESHOLDS = (0.80, 0.85, 0.90, 0.92, 0.95)  # Tables 4 and 14
EARLY = (1, 10, 50)  # Table 5
SMALLEST = 1e-12  # of lr and curvature: where either is 0 (the end of a schedule, a flat direction), μ_c is 1
_TAKES = "scan takes a log (its path), a table (a data frame, columns by name, a list of rows), a history or a recipe"
CURVES = {"loss": False, "accuracy": True}  # whether larger is better


class Agreement(StrEnum):
    """Whether a curve moves as its regime predicts: underdamped fluctuates, the others are steady."""

    agrees = "agrees"
    disagrees = "disagrees"
    unknown = "cannot tell"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive epochs of one regime, and how a curve moved in them.

    Attributes:
        curve: loss or accuracy.
        first, last: epochs.
        regime: None for the whole run, and where no regime is given.
        moved: the measurement.
        agreement: of the regime's prediction with it.
    """

    curve: str
    first: int
    last: int
    regime: str | None
    moved: Movement
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """When accuracy reached a threshold.

    Attributes:
        threshold: a share.
        epoch: the first at or above it, None when there was none.
        held: the epoch from which on it stayed there, None when the last one is below.
    """

    threshold: float
    epoch: int | None
    held: int | None


@dataclass(frozen=True, kw_only=True)
class Scan(Result, stage="scan", schema=1):
    """Damping regimes of a run.

    Attributes:
        epochs: a row per epoch: epoch, lr, momentum, critical (μ_c), delta (μ − μ_c), regime, and loss, accuracy (a
            share), curvature where they were logged. Without critical, delta and regime where no regimes are given.
        counts: regime → epochs; empty where no regimes are given.
        source: the log.
        assumed: what was assumed, in words, or None.
        notes: what was mended, left out or inferred when the log was read.
        optimizer: its name, where it is known.
        unclassified: why there are no regimes, or None.
        form, tolerance: of the critical momentum, see `suture.physics`.
        curvature: λ; None where each epoch has its own, or where there are no regimes.
        columns: role → name in the log.
        stretches: how loss and accuracy moved, by regime and over the whole run.
        milestones: epochs to each threshold.
        early: epoch → accuracy, None where it was not logged.
    """

    epochs: Table
    counts: dict[str, int]
    source: str
    assumed: str | None = None
    notes: tuple[str, ...] = ()
    optimizer: str | None = None
    unclassified: str | None = None
    form: Form = "paper"
    tolerance: float = TOLERANCE
    curvature: float | None = 1.0
    columns: dict[str, str] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
    milestones: tuple[Milestone, ...] = ()
    early: dict[int, float | None] = field(default_factory=dict)

    @property
    def best(self) -> tuple[int, float] | None:
        """The epoch of the highest accuracy, and that; None where no accuracy was logged."""
        if "accuracy" not in self.epochs or not self.epochs["accuracy"].notna().any():
            return None
        place = int(np.nanargmax(self.epochs["accuracy"].to_numpy(float)))
        return int(self.epochs["epoch"].iloc[place]), float(self.epochs["accuracy"].iloc[place])


def scan(
    history: "History | Recipe | str | Path | pd.DataFrame | Mapping[str, Any] | list[Any]",
    *,
    form: Form = "paper",
    curvature: float | None = None,
    tolerance: float = TOLERANCE,
    thresholds: Sequence[float] = THRESHOLDS,
    early: Sequence[int] = EARLY,
    optimizer: str | None = None,
    steps_per_epoch: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> Scan:
    """Classify every epoch as underdamped, critical or overdamped, and measure how loss and accuracy moved.

    For an optimizer that rescales the gradient (the Adam family) curvature 1 means nothing: no regimes are given
    unless the curvature of the rescaled loss is, as an argument or as a column of the log.

    Args:
        history: a log file or directory (CSV, JSON, TensorBoard, Lightning, Hugging Face), a table, a history,
            or a recipe of `suture.training`, whose schedules are then gone through without training.
        form: which critical momentum, see `suture.physics`.
        curvature: λ of every epoch; by default the log's own column, and 1 where it has none.
        tolerance: half width of the critical band, in units of momentum.
        thresholds: accuracies, as shares, whose first epoch is looked for.
        early: epochs whose accuracy is listed.
        optimizer, steps_per_epoch, columns: for reading a log, see `suture.history.load_history`.

    Raises:
        DataError: the log cannot be used, for want of a learning rate or for impossible values.
        MissingFileError: there is no such log.
        InvalidArgumentError: an argument is out of its range, or goes with a log and there is none; or the history is
            none of these.
        UnknownNameError: there is no such form or column.

    Source: paper, sections 3.2 and 4.5, Tables 4 to 6, 14 and 15.
    """
    history = _history(history, optimizer, steps_per_epoch, columns)
    if not 0 <= tolerance < math.inf:
        raise InvalidArgumentError(f"tolerance must be a number from 0 up, got {tolerance:g}; the paper uses 0.05")
    wrong = [t for t in thresholds if not 0 < t <= 1]
    if wrong:
        raise InvalidArgumentError(f"thresholds are shares between 0 and 1, got {wrong[0]:g}")
    table = history.table.copy()
    why = _unclassified(history, curvature)
    if why is None:
        _classify(table, form, curvature, tolerance)
    counts = {} if why else {str(r): int((table["regime"] == str(r)).sum()) for r in Regime}
    accuracy = table["accuracy"].to_numpy(float) if "accuracy" in table else np.array([])
    epochs = table["epoch"].to_numpy(int)
    return Scan(
        epochs=table, counts=counts, source=history.source, assumed=history.assumed, notes=history.notes,
        optimizer=history.optimizer, unclassified=why, form=form, tolerance=tolerance,
        curvature=curvature if curvature is not None or why or "curvature" in table else 1.0,
        columns=dict(history.columns), stretches=tuple(_stretches(table)),
        milestones=tuple(_milestone(t, epochs, accuracy) for t in thresholds) if len(accuracy) else (),
        early={int(e): _at(int(e), epochs, accuracy) for e in early} if len(accuracy) else {},
    )  # fmt: skip


def _history(
    history: "History | Recipe | str | Path | pd.DataFrame | Mapping[str, Any] | list[Any]", optimizer: str | None,
    steps_per_epoch: int | None,
    columns: Mapping[str, str] | None,
) -> History:  # fmt: skip
    if isinstance(history, Mapping | list):
        history = _frame(history)
    if isinstance(history, str | Path | pd.DataFrame):
        return load_history(history, steps_per_epoch=steps_per_epoch, optimizer=optimizer, columns=columns)
    for name, value in (("optimizer", optimizer), ("steps_per_epoch", steps_per_epoch), ("columns", columns)):
        if value is not None:
            raise InvalidArgumentError(f"{name} goes with a log that is read; this is none")
    if isinstance(history, History):
        return history
    from suture.stages.rehearsal import rehearse  # noqa: PLC0415 - scanning a log needs no torch
    from suture.training.presets import Recipe  # noqa: PLC0415

    if not isinstance(history, Recipe):
        raise InvalidArgumentError(f"{_TAKES}, got {type(history).__name__}")
    return rehearse(history)


def _frame(rows: "Mapping[str, Any] | list[Any]") -> pd.DataFrame:
    """Columns by name, or a list of rows, as a table."""
    if not rows:
        raise InvalidArgumentError(f"{_TAKES}, got an empty {type(rows).__name__}")
    try:
        return pd.DataFrame(rows)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidArgumentError(f"{_TAKES}; what was given makes no table ({error})") from error


def _unclassified(history: History, curvature: float | None) -> str | None:
    """Why no regimes are given, or None when they are."""
    if not history.preconditioned or curvature is not None or "curvature" in history.table:
        return None
    name = history.optimizer or "the optimizer"
    return (
        f"{name} rescales the gradient, so that a critical momentum for curvature 1 means nothing; regimes are given "
        "where the curvature of the rescaled loss is known, as a column or an argument 'curvature'"
    )


def _classify(table: pd.DataFrame, form: Form, curvature: float | None, tolerance: float) -> None:
    """Add critical, delta and regime in place; None where an epoch has no learning rate or curvature."""
    lr = table["lr"].to_numpy(float)
    own = table["curvature"].to_numpy(float) if "curvature" in table else np.ones(len(table))
    strength = own if curvature is None else np.full(len(table), float(curvature))
    if curvature is not None:
        critical_momentum(1.0, curvature, form)  # refuses what is no curvature, also where no epoch has an lr
    known = np.isfinite(lr) & np.isfinite(strength)
    safe_lr, safe_curvature = (np.where(known, x, 1.0).clip(min=SMALLEST) for x in (lr, strength))
    momentum = table["momentum"].to_numpy(float)
    table["critical"] = np.where(known, critical_momentum(safe_lr, safe_curvature, form), np.nan)
    table["delta"] = momentum - table["critical"]
    regimes = regime(momentum, safe_lr, tolerance, safe_curvature, form)
    table["regime"] = [str(each) if sure else None for each, sure in zip(regimes, known, strict=True)]


def _stretches(table: pd.DataFrame) -> Iterator[Stretch]:
    """Each curve over the epochs of one regime, then over the whole run where it had several."""
    names = table["regime"].tolist() if "regime" in table else [None] * len(table)
    names = [name if isinstance(name, str) else None for name in names]
    begins = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    spans = [(a, b, names[a]) for a, b in zip(begins, [*begins[1:], len(names)], strict=True)]
    if len(spans) > 1:
        spans.append((0, len(names), None))
    epochs = table["epoch"].to_numpy(int)
    for curve, rising in CURVES.items():
        for begin, end, name in spans if curve in table else []:
            moved = movement(table[curve].to_numpy(float)[begin:end], rising=rising)
            yield Stretch(
                curve=curve, first=int(epochs[begin]), last=int(epochs[end - 1]), regime=name, moved=moved,
                agreement=_agreement(name, moved.motion),
            )  # fmt: skip


def _agreement(name: str | None, motion: Motion) -> Agreement:
    if name is None or motion not in (Motion.fluctuates, Motion.steady):
        return Agreement.unknown
    predicted = Motion.fluctuates if name == str(Regime.underdamped) else Motion.steady
    return Agreement.agrees if motion is predicted else Agreement.disagrees


def _milestone(threshold: float, epochs: Any, accuracy: Any) -> Milestone:
    first, held = first_reached(accuracy, threshold), held_from(accuracy, threshold)
    return Milestone(
        threshold=float(threshold),
        epoch=None if first is None else int(epochs[first]),
        held=None if held is None else int(epochs[held]),
    )


def _at(epoch: int, epochs: Any, accuracy: Any) -> float | None:
    place = np.flatnonzero((epochs == epoch) & np.isfinite(accuracy))
    return float(accuracy[place[0]]) if len(place) else None
