"""Verify as tables and sentences: the numbers of the verdict, what moved beyond chance, drift, confusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.stats import ALPHA, Verdict, wilson
from suture.views import baselines
from suture.views.diagnose import attributions
from suture.views.grid import Column, Grid, column, records
from suture.views.style import floats
from suture.views.text import count, listed, number, p_value, percent, points, ratio, signed
from suture.wording import several

if TYPE_CHECKING:
    from suture.stages.diagnose import Diagnosis
    from suture.stages.verify import Verification
    from suture.stats import Interval

LONGEST = 100  # classes or slices in a table
MOVED = 10  # confusions outside the targeted ones that are shown
NOTED = 6  # rows beyond chance in a terminal
SMALLEST = 1e-9  # a p-value below this says no more in a sentence
TESTED = [Column("p, corrected", numeric=True), Column("Verdict")]


def said_of(result: Verification) -> str:
    """The verdict in one sentence, with the numbers that it rests on."""
    if not result.n:
        return f"There were no examples to verify on: {result.verdict}"
    if result.sentence.endswith("the patch is empty."):
        return f"The patch is empty and changes none of {several(result.n, 'example')}: {result.verdict}"
    p = "p < 10⁻⁹" if result.p_value < SMALLEST else f"p = {p_value(result.p_value)}"
    return (
        f"The repair fixes {count(result.fixed)} and breaks {count(result.broken)} of {several(result.n, 'example')}: "
        f"{result.verdict}, {p}"
    )


def grid(result: Verification) -> Grid:
    """The numbers that the verdict rests on."""
    n = result.n
    table = [
        ["accuracy before", percent(result.accuracy_before), _within(result.interval_before)],
        ["accuracy after", percent(result.accuracy_after), _within(result.interval_after)],
        ["fixed", count(result.fixed), ""],
        ["broken", count(result.broken), ""],
        ["fixed : broken", ratio(result.fixed, result.broken), _ratio_within(result)],
        ["net", signed(result.net), f"{signed(result.net_interval.low)} to {signed(result.net_interval.high)}"],
        ["McNemar p, exact", p_value(result.p_value), ""],
        ["negative flip rate", percent(result.negative_flip_rate), _share_within(result.broken, n)],
        ["regression rate", percent(result.regression_rate), f"at most {percent(result.regression_bound)}"],
    ]
    for name, share in (("churn", result.churn), ("churn floor", result.churn_floor)):
        if share is not None:
            table.append([name, percent(share), _share_within(round(share * n), n)])
    if result.must_keep is not None:
        table.append(["must keep, broken", f"{len(result.broken_must_keep)} of {count(result.must_keep)}", ""])
    marked = frozenset(i for i, row in enumerate(table) if row[0] == "net" or row[0] == "must keep, broken")
    columns = [Column("Measure"), *column("Value", "95 % interval")]
    return Grid(f"On {several(n, 'example')}: {result.verdict}", columns, table, marked)


def _within(interval: Interval | None) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else ""


def _share_within(events: int, n: int) -> str:
    return _within(wilson(events, n)) if n else ""


def _ratio_within(result: Verification) -> str:
    found = result.ratio_interval
    if found is None or result.fixed + result.broken == 0:
        return ""
    return f"{number(found.low, 2)} to {'∞' if np.isinf(found.high) else number(found.high, 2)}"


def drift(result: Verification) -> Grid:
    """How far the outputs moved on untouched data; no rows where none were given."""
    d = result.drift
    columns = [Column("Measure"), *column("Value", "95 % interval")]
    if d is None:
        return Grid("On untouched examples", columns, [])
    rows = []
    if d.kl is not None and d.kl_interval is not None:
        rows.append(["mean KL, nats", number(d.kl), f"{number(d.kl_interval.low)} to {number(d.kl_interval.high)}"])
    if d.changed is not None:
        rows.append(["changed predictions", percent(d.changed), _within(d.changed_interval)])
    if d.accuracy_before is not None:
        rows += [
            ["accuracy before", percent(d.accuracy_before), _within(d.interval_before)],
            ["accuracy after", percent(d.accuracy_after), _within(d.interval_after)],
            ["fixed, broken", f"{count(d.fixed)}, {count(d.broken)}", ""],
            ["McNemar p, exact", p_value(d.p_value), ""],
        ]
    return Grid(f"Drift on {several(d.n, 'untouched example')}", columns, rows)


def beyond_chance(result: Verification) -> Grid:
    """Classes, confusions and slices that moved beyond chance, what became worse and what is surest first."""
    found: list[tuple[bool, float, list[str]]] = []
    for kind, rows in (("class", result.per_class), ("confusion", result.pairs), ("slice", result.per_slice)):
        for r in records(rows):
            if said(r):
                shown = count if kind == "confusion" else percent
                name = f"{r['true']} → {r['predicted']}" if kind == "confusion" else str(r[kind])
                cells = [name, kind, shown(r["before"]), shown(r["after"]), *tested(r)]
                found.append((said(r) != Verdict.WORSE, float(r["adjusted"]), cells))
    found.sort(key=lambda row: row[:2])
    columns = [Column("What"), Column("Kind"), *column("Before", "After"), *TESTED]
    more = f"{NOTED} of {len(found)}; the CSV files in verify/ have all." if len(found) > NOTED else ""
    return Grid("What moved beyond chance", columns, [row for *_, row in found[:NOTED]], note=more)


def said(row: dict[str, Any]) -> str:
    """What may be said of a row; nothing in results that are older than the test."""
    word = row.get("word")
    return word if isinstance(word, str) else ""


def tested(row: dict[str, Any]) -> list[str]:
    """The cells below `TESTED`."""
    return [p_value(row["adjusted"]) if "adjusted" in row else "", said(row)]


def remarks(result: Verification) -> list[str]:
    """What was tested without a finding, what could not be, and what no repair can keep."""
    tables = {"class": result.per_class, "confusion": result.pairs, "slice": result.per_slice}
    names = {"class": "classes", "confusion": "confusions", "slice": "slices"}
    counts = [several(len(table), name, names[name]) for name, table in tables.items() if _has_tests(table)]
    sentences = []
    if counts and not beyond_chance(result):
        sentences.append(f"Of {listed(counts)}, none moved beyond chance (Holm's correction in each table).")
    sentences += baselines.sentences(result)
    if result.slices_left_out:
        sentences.append(f"No slices: {listed(result.slices_left_out)} (one value, or too many that are no numbers).")
    if result.wrong_must_keep:
        sentences.append(f"To be kept, but wrong before: {listed(result.wrong_must_keep)}.")
    return sentences


def caveats(result: Verification) -> list[str]:
    """What to hold against the verdict."""
    sentences = [f"{text[:1].upper()}{text[1:]}." for text in result.warnings]
    if result.broken_must_keep:
        sentences.append(f"Broken although they may not break: {listed(result.broken_must_keep)}.")
    sentences += [said for said in (harm_elsewhere(result), baselines.beaten_by(result)) if said]
    if result.optimistic:
        sentences.append("Optimistic: these examples were diagnosed too.")
    if result.looks > 1:
        sentences.append(
            f"These examples were looked at {result.looks} times, for a patch each: the best of several looks better "
            "than it is, and p holds for a first look."
        )
    return sentences


def harm_elsewhere(result: Verification) -> str:
    """Whether untouched data became worse beyond chance, which a good verdict does not exclude."""
    d = result.drift
    if d is None or d.fixed is None or d.broken is None or d.p_value is None or d.p_value >= ALPHA:
        return ""
    if d.broken < d.fixed:
        return ""
    moves = f"{count(d.fixed)} fixed, {count(d.broken)} broken of {several(d.n, 'example')}"
    return f"On untouched data it breaks more than it fixes: {moves}."


def _has_tests(table: pd.DataFrame) -> bool:
    return len(table) > 0 and "adjusted" in table


def change(table: pd.DataFrame) -> pd.Series:
    """Accuracy after minus before, per row."""
    return pd.Series(floats(table, "after") - floats(table, "before"), index=table.index)


def per_class(result: Verification) -> Grid:
    """Accuracy per class, largest loss first."""
    return _accuracies(result.per_class, "class", "classes")


def per_slice(result: Verification) -> Grid:
    """Accuracy per slice, largest loss first."""
    return _accuracies(result.per_slice, "slice", "slices")


def _accuracies(table: pd.DataFrame, what: str, several_of: str) -> Grid:
    ordered = records(table.assign(change=change(table)).sort_values("change", kind="stable"))
    rows = [
        [str(r[what]), count(r["n"]), percent(r["before"]), percent(r["after"]),
         points(r["change"]), count(r["fixed"]), count(r["broken"]), *tested(r)]
        for r in ordered
    ]  # fmt: skip
    columns = [Column(what.capitalize()), *column("Examples", "Before", "After", "Change", "Fixed", "Broken"), *TESTED]
    half = LONGEST // 2
    shown = rows if len(rows) <= LONGEST else rows[:half] + rows[-half:]
    at_ends = f"{half} {several_of} at either end, of {len(rows)}; all are in verify/per_{what}.csv."
    return Grid(f"Accuracy per {what}, largest loss first", columns, shown, note=at_ends if shown != rows else "")


def targeted(result: Verification, diagnosis: Diagnosis | None) -> Grid:
    """The confusions that Diagnose attributed: did they become rarer?"""
    groups = attributions(diagnosis)
    seen = {(str(r["true"]), str(r["predicted"])): r for r in records(result.pairs)}
    rows = []
    for (true, predicted), group in groups.items():
        row = seen.get((true, predicted), {"before": 0, "after": 0, "change": 0})
        counts = [count(row["before"]), count(row["after"]), signed(row["change"])]
        rows.append([true, predicted, group, *counts, *tested(row)])
    columns = [Column("True"), Column("Predicted"), Column("Group"), *column("Before", "After", "Change"), *TESTED]
    return Grid("Targeted confusions", columns, rows)


def moved(result: Verification, diagnosis: Diagnosis | None) -> Grid:
    """The other confusions that changed most."""
    groups = attributions(diagnosis)
    rows = [r for r in records(result.pairs) if (str(r["true"]), str(r["predicted"])) not in groups and r["change"]]
    rows.sort(key=lambda r: -abs(r["change"]))
    table = [
        [str(r["true"]), str(r["predicted"]), count(r["before"]), count(r["after"]), signed(r["change"]), *tested(r)]
        for r in rows[:MOVED]
    ]
    columns = [Column("True"), Column("Predicted"), *column("Before", "After", "Change"), *TESTED]
    which = "Other confusions" if groups else "Confusions"
    return Grid(f"{which} that changed most", columns, table)


def outcomes(result: Verification) -> Grid:
    """The fourfold table that McNemar's test reads."""
    right = result.right_before
    wrong = result.n - right
    rows = [
        ["right before", count(right - result.broken), f"{count(result.broken)} broken"],
        ["wrong before", f"{count(result.fixed)} fixed", count(wrong - result.fixed)],
    ]
    return Grid("Where the examples went", [Column(""), *column("right after", "wrong after")], rows)


def pairs_sentence(result: Verification, diagnosis: Diagnosis | None) -> str:
    """Whether the targeted confusions are the ones that moved."""
    groups = attributions(diagnosis)
    if not groups or not len(result.pairs):
        return ""
    hit = np.array([(str(r["true"]), str(r["predicted"])) in groups for r in records(result.pairs)])
    parts = []
    for these, name in ((hit, "the targeted confusions"), (~hit, "all others")):
        was, now = (int(result.pairs.loc[these, when].sum()) for when in ("before", "after"))
        if was or now:
            parts.append(f"{name} went from {count(was)} to {several(now, 'error')}")
    return f"Together, {'; '.join(parts)}." if parts else ""
