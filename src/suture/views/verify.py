"""Verify: before against after, on examples that nothing else has seen (paper, Tables 10 and 17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.stats import wilson
from suture.views import baselines
from suture.views.diagnose import attributions
from suture.views.gallery import cells, galleries, targets
from suture.views.grid import lines, records, stacked
from suture.views.matrix import matrix, note, views
from suture.views.render import image, render, standalone
from suture.views.style import BLUE, MUTED, VERMILLION, dress, legend, name_rows, rows
from suture.views.text import count, listed, p_value, percent, points, ratio, signed
from suture.views.verify_tables import (
    beyond_chance,
    caveats,
    change,
    drift,
    grid,
    harm_elsewhere,
    moved,
    outcomes,
    pairs_sentence,
    per_class,
    per_slice,
    remarks,
    said,
    targeted,
)
from suture.wording import plain, several

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.diagnose import Diagnosis
    from suture.stages.verify import Verification
    from suture.stats import Interval

CLASSES, SLICES = 20, 12  # rows of a figure: those whose accuracy changed most


def figure(result: Verification, ax: Axes | None = None) -> Axes:
    """Accuracy before and after with 95 % Wilson intervals: all examples, then class by class.

    Worry about classes and slices whose point after lies left of the one before: they paid for the others. Those
    called better or worse moved beyond chance, corrected for the number of rows.
    """
    classes, slices = _most_changed(result.per_class, CLASSES), _most_changed(result.per_slice, SLICES)
    names = [f"all ({count(result.n)})", *(_named(r, "class") for r in classes), *(_named(r, "slice") for r in slices)]
    before = [(result.accuracy_before, result.interval_before)] + [_share(r, "before") for r in classes + slices]
    after = [(result.accuracy_after, result.interval_after)] + [_share(r, "after") for r in classes + slices]
    ax = ax or rows(len(names))
    places = np.arange(len(names))
    _points(ax, places - 0.14, before, MUTED, "before", "s")
    worse = np.array([a[0] < b[0] for a, b in zip(after, before, strict=True)])
    for hit, colour, name, marker in (
        (~worse, BLUE, "after", "o"), (worse, VERMILLION, "after, lower than before", "v"),
    ):  # fmt: skip
        _points(ax, places[hit] + 0.14, [after[i] for i in np.flatnonzero(hit)], colour, name, marker)
    name_rows(ax, names)
    for place in {0.5, len(classes) + 0.5} if len(names) > 1 else ():  # all | classes | slices
        if place < len(names) - 1:
            ax.axhline(place, color=MUTED, linewidth=0.8)
    shown = ((classes, result.per_class, "classes"), (slices, result.per_slice, "slices"))
    more = [f"{len(some)} of {len(every)} {what}" for some, every, what in shown if len(some) < len(every)]
    dress(ax, title=", ".join(["Accuracy before and after", *more]), x="accuracy (%), with 95 % Wilson interval")
    legend(ax)
    return ax


def _points(ax: Axes, places: Any, shares: list[tuple[float, Interval]], colour: str, name: str, marker: str) -> None:
    if not shares:
        return
    centre = 100 * np.array([share for share, _ in shares])
    low = centre - 100 * np.array([interval.low for _, interval in shares])
    high = 100 * np.array([interval.high for _, interval in shares]) - centre
    ax.errorbar(
        centre, places, xerr=np.clip([low, high], 0, None), fmt=marker, color=colour, markersize=5.5,
        elinewidth=1.4, label=name,
    )  # fmt: skip


def _share(row: dict[str, Any], when: str) -> tuple[float, Interval]:
    return float(row[when]), wilson(round(row[when] * row["n"]), int(row["n"]))


def _named(row: dict[str, Any], what: str) -> str:
    """A row's name with its size and, where it moved beyond chance, its verdict."""
    return " · ".join(filter(None, [f"{plain(row[what], 26)} ({count(row['n'])})", said(row)]))


def _most_changed(table: pd.DataFrame, limit: int) -> list[dict[str, Any]]:
    """Rows in their order, those whose accuracy changed most where there are many."""
    size = change(table).abs().dropna()
    kept = size.sort_values(ascending=False, kind="stable").index[:limit].sort_values()
    return records(table.loc[kept])


def table(result: Verification) -> Table:
    """The numbers that the verdict rests on, what moved beyond chance, and the verdict last; for a terminal."""
    grids = [grid(result), baselines.grid(result, narrow=True), drift(result), beyond_chance(result)]
    return stacked(
        *(each.rich() for each in grids if each), lines([*remarks(result), *caveats(result), result.sentence])
    )


def html(result: Verification) -> Markup:
    """Figure, tables and galleries, for a notebook."""
    return standalone(section(result))


def section(result: Verification, diagnosis: Diagnosis | None = None) -> Markup:
    """Figure, tables and galleries, for the page.

    Args:
        diagnosis: names the targeted confusions and the group each was attributed to.
    """
    alt = (
        f"Accuracy before and after on {several(result.n, 'example')}: {percent(result.accuracy_before)} and "
        f"{percent(result.accuracy_after)}; and per class."
    )
    found, counts = cells(result), matrix(result)
    return render(
        "verify.html.j2",
        result=result,
        chart=image(lambda: figure(result), alt) if result.n and result.fixed + result.broken else None,
        grid=grid(result),
        outcomes=outcomes(result),
        per_class=per_class(result),
        per_slice=per_slice(result),
        drift=drift(result),
        drift_worse=harm_elsewhere(result),
        baselines=baselines.grid(result),
        bars=image(lambda: baselines.figure(result), _alt_beside(result)) if len(result.baselines) else None,
        beaten_by=baselines.beaten_by(result),
        remarks=remarks(result),
        targeted=targeted(result, diagnosis),
        moved=moved(result, diagnosis),
        summary=pairs_sentence(result, diagnosis),
        galleries=galleries(result, attributions(diagnosis)),
        cells=found,
        matrices=views(counts, targets(found)) if counts else [],
        others=counts is not None and len(counts.classes) < counts.of,
        note=note(counts) if counts else "",
        lead=lead(result),
    )


def _alt_beside(result: Verification) -> str:
    told = [f"{row['plan']} {count(row['fixed'])} : {count(row['broken'])}" for row in records(result.baselines)]
    return f"Fixed and broken on the same examples: {listed(told)}."


def lead(result: Verification) -> str:
    """What was found, in a sentence in plain words."""
    if not result.n:
        return "There were no examples to verify on."
    seen = "that were diagnosed too" if result.optimistic else "that no stage before had seen"
    if not result.fixed + result.broken:
        return f"On {several(result.n, 'example')} {seen}, the repair turns no answer from wrong to right or back."
    return (
        f"On {several(result.n, 'example')} {seen}, {several(result.fixed, 'wrong answer')} became right and "
        f"{several(result.broken, 'right answer')} became wrong."
    )


def headline(result: Verification) -> dict[str, str]:
    """The banner: the verdict's reason, and four numbers."""
    word, _, reason = result.sentence.partition(": ")
    return {
        "reason": reason[:1].upper() + reason[1:] if word.lower() == result.verdict else result.sentence,
        "accuracy": f"{percent(result.accuracy_before)} → {percent(result.accuracy_after)}",
        "change": points(result.accuracy_after - result.accuracy_before),
        "ratio": f"{count(result.fixed)} : {count(result.broken)}",
        "reduced": ratio(result.fixed, result.broken),
        "net": signed(result.net),
        "interval": f"{signed(result.net_interval.low)} to {signed(result.net_interval.high)}",
        "p": p_value(result.p_value),
        "harm": harm_elsewhere(result),
    }
