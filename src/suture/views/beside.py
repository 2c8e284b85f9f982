"""The repair beside its baselines: a table, a sentence, a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.stats import Verdict
from suture.treatments.choice import NONE
from suture.views.grid import Column, Grid, column
from suture.views.style import BLUE, INK, VERMILLION, dress, floats, label, legend, name_rows, rows
from suture.views.text import count, listed, number, p_value, percent, plain, ratio, signed
from suture.wording import several

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from suture.stages.verify import Verification


def baselines(result: Verification, *, narrow: bool = False) -> Grid:
    """The repair and its baselines, a row each; no rows where there are none.

    Args:
        narrow: for a terminal, without what the other columns tell.
    """
    caption = f"The repair and its baselines on the same {several(result.n, 'example')}"
    if narrow:
        caption += ". Won: only the repair has them right"
    columns = [
        Column("Plan"),
        *([] if narrow else column("Accuracy")),
        *column("Fixed : broken"),
        *([] if narrow else column("Ratio")),
        *column("Net"),
        *([] if narrow else column("Regression rate")),
        *column("× full", "Won : lost", "p"),
        Column("Repair"),
    ]
    table = [_cells(row, narrow=narrow) for row in _records(result)]
    note = (
        "× full: computing of all trainings, in full fine-tunings. Won: right with the repair, wrong with the "
        "baseline; lost: the other way round. p: exact McNemar test of that, with Holm's correction."
    )
    return Grid(caption, columns, table, frozenset({0} if table else ()), note if table and not narrow else "")


def _cells(row: dict[str, Any], *, narrow: bool) -> list[str]:
    fixed, broken = int(row["fixed"]), int(row["broken"])
    wide = [[percent(row["accuracy"])], [ratio(fixed, broken)], [percent(row["regression_rate"])]]
    accuracy, reduced, regression = ([], [], []) if narrow else wide
    return [
        _name(row), *accuracy, f"{count(fixed)} : {count(broken)}", *reduced, signed(row["net"]), *regression,
        number(row["times_full"], 2), *_against(row),
    ]  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    return f"{row['plan']} (kept none)" if row["kept"] == NONE != row["plan"] else str(row["plan"])


def _against(row: dict[str, Any]) -> list[str]:
    """How the repair does against a baseline; nothing in the repair's own row."""
    if pd.isna(row["ahead"]):
        return ["", "", ""]
    return [f"{count(row['ahead'])} : {count(row['behind'])}", p_value(row["adjusted"]), str(row["word"] or "")]


def sentences(result: Verification) -> list[str]:
    """Which baselines the repair beats on the same examples, and from which it cannot be told apart."""
    others = _records(result)[1:]
    if not others:
        return []
    named = {
        word: [plain(row["plan"]) for row in others if (row["word"] or "") == word]
        for word in (Verdict.BETTER, "", Verdict.WORSE)
    }
    parts = [
        f"{said} {listed(named[word])}"
        for word, said in ((Verdict.BETTER, "better than"), ("", "not to be told apart from"))
        if named[word]
    ]
    return [f"Beside its baselines, the repair is {', and '.join(parts)}."] if parts else []


def beaten_by(result: Verification) -> str:
    """Baselines that do better beyond chance, which a good verdict does not exclude."""
    own, *others = _records(result) or [{}]
    ahead = [row for row in others if row["word"] == Verdict.WORSE]
    if not ahead:
        return ""
    told = [f"{plain(row['plan'])} (net {signed(row['net'])})" for row in ahead]
    return f"On the same examples a baseline does better: {listed(told)}, the repair {signed(own['net'])}."


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
    name_rows(ax, [plain(_name(row), 26) for row in _records(result)])
    dress(ax, title="Fixed and broken, the repair and its baselines", x="examples (broken to the left)")
    ax.xaxis.set_major_formatter(lambda x, _: count(abs(x)))
    ax.locator_params(axis="x", nbins=6, integer=True)
    ax.margins(x=0.16)
    legend(ax)
    return ax


def _records(result: Verification) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in result.baselines.to_dict("records")]
