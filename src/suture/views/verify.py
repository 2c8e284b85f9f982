"""Verify: before against after, on examples that nothing else has seen (paper, Tables 10 and 17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.stats import wilson
from suture.views.diagnose import attributions
from suture.views.grid import Column, Grid, column
from suture.views.render import image, render, standalone, thumbnail
from suture.views.style import BLUE, MUTED, VERMILLION, dress, floats, legend, name_rows, rows
from suture.views.text import count, p_value, percent, plain, points, ratio, several, signed

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.diagnose import Diagnosis
    from suture.stages.verify import Verification
    from suture.stats import Interval

CLASSES = 20  # classes in a figure: those whose accuracy changed most
LONGEST = 100  # classes in a table
MOVED = 10  # confusions outside the targeted ones that are shown


def figure(result: Verification, ax: Axes | None = None) -> Axes:
    """Accuracy before and after with 95 % Wilson intervals: all examples, then class by class.

    Worry about classes whose point after lies left of the one before: they paid for the others.
    """
    classes = _most_changed(result.per_class)
    names = [f"all ({count(result.n)})"] + [f"{plain(r['class'], 26)} ({count(r['n'])})" for r in classes]
    before = [(result.accuracy_before, result.interval_before)] + [_share(r, "before") for r in classes]
    after = [(result.accuracy_after, result.interval_after)] + [_share(r, "after") for r in classes]
    ax = ax or rows(len(names))
    places = np.arange(len(names))
    _points(ax, places - 0.14, before, MUTED, "before", "s")
    worse = np.array([a[0] < b[0] for a, b in zip(after, before, strict=True)])
    for hit, colour, name, marker in (
        (~worse, BLUE, "after", "o"), (worse, VERMILLION, "after, lower than before", "v"),
    ):  # fmt: skip
        _points(ax, places[hit] + 0.14, [after[i] for i in np.flatnonzero(hit)], colour, name, marker)
    name_rows(ax, names)
    if len(names) > 1:
        ax.axhline(0.5, color=MUTED, linewidth=0.8)
    more = f", {len(classes)} of {len(result.per_class)} classes" if len(classes) < len(result.per_class) else ""
    dress(ax, title=f"Accuracy before and after{more}", x="accuracy (%), with 95 % Wilson interval")
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


def _most_changed(per_class: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes in their order, those whose accuracy changed most where there are many."""
    change = _change(per_class).abs().dropna()
    kept = change.sort_values(ascending=False, kind="stable").index[:CLASSES].sort_values()
    return [{str(k): v for k, v in row.items()} for row in per_class.loc[kept].to_dict("records")]


def _change(per_class: pd.DataFrame) -> pd.Series:
    return pd.Series(floats(per_class, "after") - floats(per_class, "before"), index=per_class.index)


def grid(result: Verification) -> Grid:
    """The numbers that the verdict rests on."""

    def within(interval: Interval) -> str:
        return f"{percent(interval.low)} to {percent(interval.high)}"

    change = f"{signed(result.net_interval.low)} to {signed(result.net_interval.high)}"
    table = [
        ["accuracy before", percent(result.accuracy_before), within(result.interval_before)],
        ["accuracy after", percent(result.accuracy_after), within(result.interval_after)],
        ["fixed", count(result.fixed), ""],
        ["broken", count(result.broken), ""],
        ["net", signed(result.net), change],
        ["McNemar p, exact", p_value(result.p_value), ""],
        ["negative flip rate", percent(result.negative_flip_rate), ""],
        ["regression rate", percent(result.regression_rate), f"at most {percent(result.regression_bound)}"],
    ]
    if result.churn is not None:
        table.append(["churn", percent(result.churn), ""])
    columns = [Column("Measure"), *column("Value", "95 % interval")]
    return Grid(f"On {several(result.n, 'example')}: {result.verdict}", columns, table, frozenset({4}))


def per_class(result: Verification) -> Grid:
    """Accuracy per class, largest loss first."""
    classes = result.per_class.assign(change=_change(result.per_class)).sort_values("change", kind="stable")
    rows_ = [
        [str(r["class"]), count(r["n"]), percent(r["before"]), percent(r["after"]),
         points(r["change"]), count(r["fixed"]), count(r["broken"])]
        for r in classes.to_dict("records")
    ]  # fmt: skip
    columns = [Column("Class"), *column("Examples", "Before", "After", "Change", "Fixed", "Broken")]
    half = LONGEST // 2
    shown = rows_ if len(rows_) <= LONGEST else rows_[:half] + rows_[-half:]
    note = f"{half} classes at either end, of {len(rows_)}; all are in verify/per_class.csv." if shown != rows_ else ""
    return Grid("Accuracy per class, largest loss first", columns, shown, note=note)


def targeted(result: Verification, diagnosis: Diagnosis | None) -> Grid:
    """The confusions that Diagnose attributed: did they become rarer?"""
    groups = attributions(diagnosis)
    seen = {(str(r["true"]), str(r["predicted"])): r for r in result.pairs.to_dict("records")}
    rows_ = []
    for (true, predicted), group in groups.items():
        row: dict[Any, Any] = seen.get((true, predicted), {"before": 0, "after": 0, "change": 0})
        rows_.append([true, predicted, group, count(row["before"]), count(row["after"]), signed(row["change"])])
    columns = [Column("True"), Column("Predicted"), Column("Group"), *column("Before", "After", "Change")]
    return Grid("Targeted confusions", columns, rows_)


def moved(result: Verification, diagnosis: Diagnosis | None) -> Grid:
    """The other confusions that changed most."""
    groups = attributions(diagnosis)
    rows_ = [
        r
        for r in result.pairs.to_dict("records")
        if (str(r["true"]), str(r["predicted"])) not in groups and r["change"]
    ]
    rows_.sort(key=lambda r: -abs(r["change"]))
    table = [
        [str(r["true"]), str(r["predicted"]), count(r["before"]), count(r["after"]), signed(r["change"])]
        for r in rows_[:MOVED]
    ]
    columns = [Column("True"), Column("Predicted"), *column("Before", "After", "Change")]
    which = "Other confusions" if groups else "Confusions"
    return Grid(f"{which} that changed most", columns, table)


def table(result: Verification) -> Table:
    """The numbers that the verdict rests on, for a terminal."""
    return grid(result).rich()


def html(result: Verification) -> Markup:
    """Figure, tables and galleries, for a notebook."""
    return standalone(section(result))


def section(result: Verification, diagnosis: Diagnosis | None = None) -> Markup:
    """Figure, tables and galleries, for the page.

    Args:
        diagnosis: names the targeted confusions and the group each was attributed to.
    """
    alt = (
        f"Accuracy before and after on {count(result.n)} examples: {percent(result.accuracy_before)} and "
        f"{percent(result.accuracy_after)}; and per class."
    )
    return render(
        "verify.html.j2",
        result=result,
        chart=image(lambda: figure(result), alt) if result.n and result.fixed + result.broken else None,
        grid=grid(result),
        outcomes=outcomes(result),
        per_class=per_class(result),
        targeted=targeted(result, diagnosis),
        moved=moved(result, diagnosis),
        summary=pairs_sentence(result, diagnosis),
        galleries=[_gallery(result, kind, attributions(diagnosis)) for kind in ("fixed", "broken")],
    )


def outcomes(result: Verification) -> Grid:
    """The fourfold table that McNemar's test reads."""
    right = round(result.accuracy_before * result.n)
    wrong = result.n - right
    rows_ = [
        ["right before", count(right - result.broken), f"{count(result.broken)} broken"],
        ["wrong before", f"{count(result.fixed)} fixed", count(wrong - result.fixed)],
    ]
    return Grid("Where the examples went", [Column(""), *column("right after", "wrong after")], rows_)


def pairs_sentence(result: Verification, diagnosis: Diagnosis | None) -> str:
    """Whether the targeted confusions are the ones that moved."""
    groups = attributions(diagnosis)
    if not groups or not len(result.pairs):
        return ""
    hit = np.array([(str(r["true"]), str(r["predicted"])) in groups for r in result.pairs.to_dict("records")])
    parts = []
    for these, name in ((hit, "the targeted confusions"), (~hit, "all others")):
        was, now = (int(result.pairs.loc[these, when].sum()) for when in ("before", "after"))
        if was or now:
            parts.append(f"{name} went from {count(was)} to {several(now, 'error')}")
    return f"Together, {'; '.join(parts)}." if parts else ""


def _gallery(result: Verification, kind: str, groups: dict[tuple[str, str], str]) -> dict[str, Any]:
    """Fixed or broken examples, with pictures where there are some, and the group their error goes to."""
    pictures = result.pictures.get(kind)
    wrong = "before" if kind == "fixed" else "after"
    items = []
    for i, row in enumerate(result.gallery[result.gallery["kind"] == kind].to_dict("records")):
        true, before, after = (None if _missing(row[k]) else str(row[k]) for k in ("true", "before", "after"))
        alt = f"{plain(row['example'], 60)}: true {true}, before {before}, after {after}"
        items.append({
            "example": row["example"], "true": true, "before": before, "after": after,
            "group": groups.get((str(true), str(row[wrong]))),
            "picture": thumbnail(pictures[i], alt) if pictures is not None and i < len(pictures) else None,
        })  # fmt: skip
    total = result.fixed if kind == "fixed" else result.broken
    return {
        "kind": kind,
        "total": total,
        "examples": items,
        "pictures": any(item["picture"] for item in items),
        "classes": any(item["true"] is not None for item in items),
        "attributed": any(item["group"] for item in items),
    }


def _missing(value: Any) -> bool:
    return value is None or value != value  # a table read back may hold NaN for None


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
    }
