"""Subgroups: values of the data's metadata under which more is wrong than elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suture.views.grid import Column, Grid, column
from suture.views.text import count, p_value, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    from suture.stages.diagnose import Diagnosis

SHOWN = 3  # in the sentence; the table has them all


def sentence(result: Diagnosis) -> str:
    """Under which values most is wrong, surest first, or that there is none; nothing where data have no metadata."""
    rows = result.subgroups.to_dict("records")
    if not rows:
        tested = f"Of {several(result.values_tested, 'value')} of the metadata none has more errors than the rest."
        return tested if result.values_tested else ""
    return f"More is wrong under {_named(rows, SHOWN)}."


def brief(result: Diagnosis) -> str:
    """The surest of them, and how many more there are; nothing where there is none."""
    rows = result.subgroups.to_dict("records")
    return _named(rows, 1) if rows else ""


def _named(rows: list[dict[Any, Any]], most: int) -> str:
    more = [f"{count(len(rows) - most)} more"] if len(rows) > most else []
    return "; ".join([*map(_said, rows[:most]), *more])


def _said(row: Any) -> str:
    wrong = f"{count(row['errors'])} of {several(row['n'], 'example')} ({percent(row['rate'], 0)})"
    return f"{_value(row, 40)}: {wrong}, against {percent(row['rate_outside'], 0)} elsewhere"


def _value(row: Any, limit: int | None = None) -> str:
    return f"{plain(row['column'], limit)} = {plain(row['value'], limit)}"


def grid(result: Diagnosis) -> Grid:
    """A row per value."""
    columns = [Column("Value"), *column("Errors", "Of", "Wrong [95 %]", "Elsewhere", "p")]
    rows = [
        [_value(row), count(row["errors"]), count(row["n"]),
         f"{percent(row['rate'], 0)} [{percent(row['low'], 0)}, {percent(row['high'], 0)}]",
         percent(row["rate_outside"], 0), p_value(row["p"])]
        for row in result.subgroups.to_dict("records")
    ]  # fmt: skip
    return Grid(
        "Values of the metadata under which more is wrong than elsewhere", columns, rows,
        note=f"p: Fisher's exact test, corrected for {several(result.values_tested, 'value')} tested.",
    )  # fmt: skip
