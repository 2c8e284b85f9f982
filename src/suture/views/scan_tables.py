"""The tables and sentences of a scan (paper, Tables 4 to 6, 14 and 15)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from suture.curves import period
from suture.physics import Regime
from suture.views.grid import Column, Grid, column
from suture.views.style import floats
from suture.views.text import NOTHING, count, listed, number, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    import pandas as pd

    from suture.stages.scan import Scan, Stretch

LONGEST = 60  # rows of a table on the page


def by_epoch(result: Scan, limit: int = LONGEST, *, narrow: bool = False) -> Grid:
    """Epoch by epoch (Table 15): all of them, or `limit` with the first and last of every regime among them.

    Args:
        narrow: with one column of what was logged besides lr and momentum, for a terminal of 80 columns.
    """
    log = result.epochs
    chosen = _chosen(log, limit)
    logged = [name for name in ("curvature", "accuracy", "loss") if np.isfinite(floats(log, name)).any()]
    logged = logged[:1] if narrow else logged[::-1]
    names = ["lr", "momentum", *(["critical", "delta"] if result.counts else []), *logged]
    heads = {"lr": "α", "momentum": "μ", "critical": "μ_c", "delta": "μ − μ_c", "curvature": "λ"}
    rows = []
    for i in chosen:
        row = log.iloc[i]
        cells = [percent(row[n], 2) if n == "accuracy" else number(row[n], 3 if narrow else 4) for n in names]
        regime = row["regime"] if result.counts and isinstance(row["regime"], str) else NOTHING
        rows.append([count(row["epoch"]), *cells, *([regime] if result.counts else [])])
    columns = [
        *column("Epoch", *(heads.get(n, n.capitalize()) for n in names)),
        *([Column("Regime")] * bool(result.counts)),
    ]
    cut = len(chosen) < len(log)
    note = f"{count(len(chosen))} of {several(len(log), 'epoch')}." if cut else ""
    return Grid("Epoch by epoch", columns, rows, note=note)


def _chosen(log: pd.DataFrame, limit: int) -> list[int]:
    if len(log) <= limit:
        return list(range(len(log)))
    names = log["regime"].tolist() if "regime" in log else [None] * len(log)
    edges = {i + j for i in range(len(names) - 1) if names[i] != names[i + 1] for j in (0, 1)} | {0, len(log) - 1}
    if len(edges) > limit // 2:
        edges = {0, len(log) - 1}
    even = np.linspace(0, len(log) - 1, limit - len(edges)).round().astype(int)
    return sorted(edges | {int(i) for i in even})


def motion(result: Scan) -> Grid:
    """How loss and accuracy moved in each regime, beside what noise does and what the regime predicts."""
    rows = [_moved(stretch) for stretch in result.stretches[:LONGEST]]
    columns = [
        Column("Curve"), Column("Epochs"), Column("Regime"), Column("It"), Column("Prediction"),
        *column("Turns", "by noise", "Fall", "by noise", "Swings"),
    ]  # fmt: skip
    cut = len(result.stretches) > LONGEST
    note = (
        (f"The first {LONGEST} of {count(len(result.stretches))} stretches. " if cut else "")
        + "Turns: changes of direction; by noise: of the same values in random order. Fall: below the best before, at "
        "most; by noise: as noise of the curve's strength makes in 95 of 100 cases. Swings: reversals beyond noise. "
        "Underdamped epochs are predicted to fluctuate, the others to be steady."
    )
    return Grid("Predicted and observed oscillation", columns, rows, note=note if rows else "")


def motion_in_two(result: Scan) -> list[Grid]:
    """The same for a terminal of 80 columns: the words, then the numbers."""
    whole = motion(result)
    return [
        Grid(
            caption, [whole.columns[i] for i in places], [[row[i] for i in places] for row in whole.rows],
            note=whole.note if caption.startswith("How") else "",
        )
        for caption, places in ((whole.caption, (0, 1, 2, 3, 4)), ("How the curves moved", (0, 1, 5, 6, 7, 8, 9)))
    ]  # fmt: skip


def _moved(stretch: Stretch) -> list[str]:
    m, accuracy = stretch.moved, stretch.curve == "accuracy"

    def fall(value: float | None) -> str:
        return f"{number(100 * value, 2)} points" if accuracy and value is not None else number(value, 2)

    return [
        stretch.curve, f"{count(stretch.first)}–{count(stretch.last)}", stretch.regime or "all", str(m.motion),
        str(stretch.agreement) if stretch.regime else NOTHING, count(m.turns), count(m.turns_noise), fall(m.fall),
        fall(m.fall_noise), count(m.swings),
    ]  # fmt: skip


def milestones(result: Scan) -> Grid:
    """Epochs to each threshold (Tables 4 and 14), and the accuracy of early epochs (Table 5)."""
    rows = [
        [f"{percent(m.threshold, 1).replace('.0', '')} reached", count(m.epoch), count(m.held)]
        for m in result.milestones
    ]
    rows += [
        [f"epoch {count(epoch)}", percent(value, 2), ""] for epoch, value in result.early.items() if value is not None
    ]
    if result.best:
        rows.append([f"best, epoch {count(result.best[0])}", percent(result.best[1], 2), ""])
    name = result.columns.get("accuracy", "accuracy")
    columns = [Column("Milestone"), *column("First", "For good from")]
    return Grid("Accuracy" if name == "accuracy" else f"Accuracy ({plain(name, 30)})", columns, rows)


def findings(result: Scan) -> list[str]:
    """What is to be said besides the numbers: why there are no regimes, agreement, how the log was read."""
    said = [as_sentence(result.unclassified)] if result.unclassified else []
    if result.assumed and not result.counts:
        said.append(f"Assumed: {result.assumed}.")  # else it stands below the regimes
    if result.counts and len(result.epochs):
        said += [_agreement(result), *_periods(result)]
    return said + [as_sentence(note) for note in result.notes]


def as_sentence(text: str) -> str:
    """A note with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _agreement(result: Scan) -> str:
    """Which stretches moved as their regime predicts, and which did not."""
    judged = [s for s in result.stretches if s.regime]
    if not judged:
        return "Whether the run oscillated as predicted cannot be told: neither loss nor accuracy was logged."
    parts = []
    for verdict, words in (("agrees", "moved as predicted"), ("disagrees", "moved against the prediction")):
        found = [
            f"{s.curve} in epochs {s.first}–{s.last} ({s.regime}, {s.moved.motion})"
            for s in judged if str(s.agreement) == verdict
        ]  # fmt: skip
        if found:
            parts.append(f"{words}: {listed(found)}")
    unknown = [s for s in judged if str(s.agreement) == "cannot tell"]
    few = sum(s.moved.turns_noise is None for s in unknown)
    if len(unknown) > few:
        parts.append(f"in {several(len(unknown) - few, 'stretch', 'stretches')} the curve moved as noise would")
    if few:
        parts.append(f"{several(few, 'stretch has', 'stretches have')} too few epochs to tell")
    return as_sentence("; ".join(parts))


def _periods(result: Scan) -> list[str]:
    """How long one oscillation takes: usually much less than an epoch, whose mean hides it."""
    log = result.epochs[result.epochs["regime"] == str(Regime.underdamped)]
    curvature = result.curvature if result.curvature is not None else 1.0
    own = floats(log, "curvature") if result.curvature is None else np.full(len(log), curvature)
    steps = [
        found
        for mu, lr, k in zip(floats(log, "momentum"), floats(log, "lr"), own, strict=True)
        if lr > 0 and k > 0 and math.isfinite(found := period(mu, lr, k))
    ]
    if not steps:
        return []
    spread = (
        count(min(steps)) if round(min(steps)) == round(max(steps)) else f"{count(min(steps))} to {count(max(steps))}"
    )
    kind = "the curvature that was logged" if result.curvature is None else f"curvature {curvature:g}"
    return [
        f"At {kind} an oscillation of the underdamped epochs takes {spread} optimizer steps; where an epoch has many "
        "more, its mean hides it."
    ]
