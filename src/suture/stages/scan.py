"""Scan: the damping regime of every epoch of a training run (sections 3.2 and 4.5, Tables 6 and 15)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from suture.history import History, load_history
from suture.physics import Regime, critical_momentum, regime
from suture.stages.result import Result, Table

TOLERANCE = 0.05
SMALLEST_LR = 1e-12  # schedules may end at exactly 0, where the critical momentum tends to 1


@dataclass(frozen=True, kw_only=True)
class Scan(Result, stage="scan", schema=1):
    """Damping regimes of a run.

    Attributes:
        epochs: a row per epoch: epoch, lr, momentum, critical (μ_c), delta (μ − μ_c), regime, and loss,
            accuracy where they were logged.
        counts: regime → epochs.
        source: the log.
        assumed: what was assumed, in words, or None.
    """

    epochs: Table
    counts: dict[str, int]
    source: str
    assumed: str | None = None


def scan(history: History | str | Path | pd.DataFrame) -> Scan:
    """Classify every epoch as underdamped, critical or overdamped, for curvature 1.

    Args:
        history: a log file, a table, or a history.

    Raises:
        DataError: the log has no learning rate.
    """
    history = history if isinstance(history, History) else load_history(history)
    table = history.table.copy()
    lr = table["lr"].to_numpy(float).clip(min=SMALLEST_LR)
    table["critical"] = critical_momentum(lr)
    table["delta"] = table["momentum"] - table["critical"]
    table["regime"] = [str(each) for each in regime(table["momentum"].to_numpy(float), lr, tol=TOLERANCE)]
    counts = {str(r): int((table["regime"] == str(r)).sum()) for r in Regime}
    return Scan(epochs=table, counts=counts, source=history.source, assumed=history.assumed)
