"""The repair beside its baselines: a table, a sentence, a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.stats import Verdict
from suture.treatments.choice import NONE
from suture.views.grid import Column, Grid, column, records
from suture.views.style import BLUE, INK, VERMILLION, dress, floats, label, legend, name_rows, rows
from suture.views.text import count, listed, number, p_value, percent, ratio, signed
from suture.wording import plain, several

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from suture.stages.verify import Verification


def grid(result: Verification, *, narrow: bool = False) -> Grid:
    """The repair and its baselines, a row each; no rows where there are none.

    Args:
        narrow: for a terminal, without what the other columns tell.
    """
    table = [_cells(row, narrow=narrow) for row in records(result.baselines)]
    caption = f"The repair and its baselines on the same {several(result.n, 'example')}"
    marked = frozenset({0} if table else ())
    if narrow:
        numbers = column("Fixed : broken", "Net", "× full", "Won : lost")
        return Grid(caption, [Column("Plan"), *numbers, Column("Repair")], table, marked)
    numbers = column("Accuracy", "Fixed : broken", "Ratio", "Net", "Regression rate", "× full", "Won : lost", "p")
    note = (
        "× full: computing of all trainings, in full fine-tunings. Won: right with the repair, wrong with the "
        "baseline; lost: the other way round. p: exact McNemar test of that, with Holm's correction."
    )
    return Grid(caption, [Column("Plan"), *numbers, Column("Repair")], table, marked, note if table else "")


def _cells(row: dict[str, Any], *, narrow: bool) -> list[str]:
    fixed, broken, spent = int(row["fixed"]), int(row["broken"]), number(row["times_full"], 2)
    moved = "kept none" if row["kept"] == NONE else f"{count(fixed)} : {count(broken)}"
    own = pd.isna(row["won"])
    against, word = ("", "") if own else (f"{count(row['won'])} : {count(row['lost'])}", str(row["word"] or ""))
    if narrow:
        return [str(row["plan"]), moved, signed(row["net"]), spent, against, word]
    return [
        str(row["plan"]), percent(row["accuracy"]), moved, ratio(fixed, broken), signed(row["net"]),
        percent(row["regression_rate"]), spent, against, "" if own else p_value(row["adjusted"]), word,
    ]  # fmt: skip


def sentences(result: Verification) -> list[str]:
    """Which baselines the repair beats on the same examples, and from which it cannot be told apart."""
    own, *others = records(result.baselines) or [{}]
    named = {
        word: [plain(row["plan"]) for row in others if (row["word"] or "") == word and row["kept"] != NONE]
        for word in (Verdict.BETTER, "")
    }
    parts = [
        f"{said} {listed(named[word])}"
        for word, said in ((Verdict.BETTER, "better than"), ("", "not to be told apart from"))
        if named[word]
    ]
    idle = [plain(row["plan"]) for row in others if row["kept"] == NONE]
    return [
        *([f"Beside its baselines, {_what(own)} is {', and '.join(parts)}."] if parts else []),
        *([f"What kept the original: {listed(idle)}."] if idle else []),
    ]


def beaten_by(result: Verification) -> str:
    """Baselines that have more right beyond chance, which a good verdict does not exclude."""
    own, *others = records(result.baselines) or [{}]
    told = [f"{plain(row['plan'])} ({_moved(row)})" for row in others if row["word"] == Verdict.WORSE]
    if not told:
        return ""
    have = "has" if len(told) == 1 else "have"
    return f"On the same examples {listed(told)} {have} more right than {_what(own)} ({_moved(own)})."


def _what(own: dict[str, Any]) -> str:
    """What the baselines stand beside: an empty patch is no repair."""
    return "leaving the network as it is" if own.get("kept") == NONE else "the repair"


def _moved(row: dict[str, Any]) -> str:
    return f"{count(row['fixed'])} fixed, {count(row['broken'])} broken"


def figure(result: Verification, ax: Axes | None = None) -> Axes:
    """What the repair and each baseline fixed, to the right, and broke, to the left, with the net behind.

    Worry when a baseline's bars are as good at a fraction of the computing: then the place did not matter.
    """
    table = result.baselines
    ax = ax or rows(len(table))
    places, fixed, broken = np.arange(len(table)), floats(table, "fixed"), floats(table, "broken")
    ax.barh(places, fixed, height=0.66, color=BLUE, label="fixed")
    ax.barh(places, -broken, height=0.66, color=VERMILLION, hatch="///", edgecolor="white", linewidth=0, label="broken")
    ax.axvline(0, color=INK, linewidth=0.8)
    for place, reach, net in zip(places, fixed, floats(table, "net"), strict=True):
        ax.annotate(
            label(f"net {signed(net)}"), (reach, place), (5, 0), textcoords="offset points", va="center", color=INK,
            fontsize="small", fontweight="bold" if place == 0 else "normal", annotation_clip=False,
        )  # fmt: skip
    name_rows(ax, [plain(row["plan"], 26) for row in records(result.baselines)])
    dress(ax, title="Fixed and broken, the repair and its baselines", x="examples (broken to the left)")
    ax.xaxis.set_major_formatter(lambda x, _: count(abs(x)))
    ax.locator_params(axis="x", nbins=6, integer=True)
    ax.margins(x=0.16)
    legend(ax)
    return ax
