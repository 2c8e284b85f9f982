"""Rows of a study as tables: CSV, means with intervals, the terminal, and a page of Markdown."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text
from scipy import stats

from suture.errors import InvalidArgumentError
from suture.registry import suggest
from suture.stats import ALPHA, wilson
from suture.studies.cells import Row
from suture.studies.grid import Shown
from suture.views.grid import escaped
from suture.wording import plain


@dataclass(frozen=True)
class Mean:
    """The mean of a column over the rows of a group.

    Attributes:
        n: rows that have a value.
        mean: their mean; for true and false the share of true.
        low, high: 95 % interval, Student's t over the rows, Wilson's for shares; None for a single number.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def to_csv(rows: Sequence[Row]) -> str:
    """All rows with all columns; what is missing is empty, lists and tables are JSON."""
    columns = columns_of(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv(row.get(name)) for name in columns] for row in rows)
    return buffer.getvalue()


def mean_of(values: Sequence[Any]) -> Mean | None:
    """The mean of numbers, or the share of true; missing values are left out, None when nothing is left.

    Raises:
        InvalidArgumentError: a value is a text.
    """
    given = [value for value in values if value is not None]
    if not given:
        return None
    if not all(isinstance(value, int | float) for value in given):
        raise InvalidArgumentError("table.mean: a mean is taken of numbers, not of texts; name another column")
    n, mean = len(given), math.fsum(given) / len(given)
    if all(isinstance(value, bool) for value in given):
        share = wilson(sum(given), n)
        return Mean(n, mean, share.low, share.high)
    if n == 1:
        return Mean(n, mean, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in given) / (n - 1))
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * deviation / math.sqrt(n)
    return Mean(n, mean, mean - half, mean + half)


def means(rows: Sequence[Row], shown: Shown) -> list[tuple[Row, dict[str, Mean | None]]]:
    """For each group, in order of appearance, the values that make it and the mean of each column.

    Raises:
        InvalidArgumentError: a column that is to be averaged holds texts.
    """
    groups: dict[str, tuple[Row, list[Row]]] = {}
    for row in rows:
        values = {name: row.get(name) for name in shown.by}
        groups.setdefault(json.dumps(values), (values, []))[1].append(row)
    return [
        (values, {name: mean_of([row.get(name) for row in members]) for name in shown.mean})
        for values, members in groups.values()
    ]


def means_csv(rows: Sequence[Row], shown: Shown) -> str:
    """One line per group and averaged column, with n and interval."""
    lines: list[Row] = []
    for values, columns in means(rows, shown):
        for name, mean in columns.items():
            found = mean or Mean(0, math.nan, None, None)
            numbers = {"n": found.n, "mean": found.mean if mean else None, "low": found.low, "high": found.high}
            lines.append(values | {"column": name} | numbers)
    return to_csv(lines)


def check_columns(rows: Sequence[Row], shown: Shown) -> None:
    """Whether the tables can be made.

    Raises:
        InvalidArgumentError: a column to show does not exist; the sentence says which one was probably meant.
    """
    known = columns_of(rows)
    for key, names in shown.model_dump().items():
        for name in [names] if isinstance(names, str) else names:
            if name and name not in known:
                raise InvalidArgumentError(f"table.{key}: the results have no column '{name}'; {suggest(name, known)}")


def counted(rows: Sequence[Row], shown: Shown) -> str:
    """``12 agree, 3 differ``-like sentence over the column `count`; empty without one."""
    counts = Counter(_shown(row.get(shown.count)) for row in rows) if shown.count else {}
    return " · ".join(f"{n} {value}" for value, n in counts.items())


def terminal(rows: Sequence[Row], shown: Shown) -> list[Table]:
    """For a terminal: the means when there are any, otherwise the rows under their headings."""
    if shown.mean:
        return [_grid("", *_mean_body(rows, shown))]
    return [_grid(title, *_row_body(inside, shown)) for title, inside in _chapters(rows, shown)]


def markdown(rows: Sequence[Row], shown: Shown) -> str:
    """For a page: the means, then the rows, under a heading for each value of `heading`."""
    parts = []
    if shown.mean:
        parts.append(_pipes(*_mean_body(rows, shown)))
    for title, inside in _chapters(rows, shown):
        heading = f"## {escaped(title)}\n\n" if title else ""
        parts.append(heading + _pipes(*_row_body(inside, shown)))
    return "\n".join(parts)


def _chapters(rows: Sequence[Row], shown: Shown) -> list[tuple[str, list[Row]]]:
    """Rows by the value of the column `heading`, in order of appearance; all of them under no title without one."""
    if not shown.heading:
        return [("", list(rows))] if rows else []
    chapters: dict[str, list[Row]] = {}
    for row in rows:
        chapters.setdefault(_shown(row.get(shown.heading)), []).append(row)
    return list(chapters.items())


def _row_body(rows: Sequence[Row], shown: Shown) -> tuple[list[str], list[list[str]]]:
    columns = [name for name in shown.columns or columns_of(rows) if name != shown.heading]
    return columns, [[_shown(row.get(name)) for name in columns] for row in rows]


def _mean_body(rows: Sequence[Row], shown: Shown) -> tuple[list[str], list[list[str]]]:
    body = [
        [*(_shown(value) for value in values.values()), *(_with_interval(mean) for mean in columns.values())]
        for values, columns in means(rows, shown)
    ]
    return [*shown.by, *shown.mean], body


def _grid(title: str, columns: Sequence[str], body: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title, style="bold") if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for line in body:
        table.add_row(*(Text(plain(cell)) for cell in line))
    return table


def _with_interval(mean: Mean | None) -> str:
    if mean is None:
        return ""
    if mean.low is None or mean.high is None:
        return f"{mean.mean:.4g} (n = {mean.n})"
    return f"{mean.mean:.4g} [{mean.low:.4g}, {mean.high:.4g}] (n = {mean.n})"


def _pipes(columns: Iterable[str], body: Iterable[Sequence[str]]) -> str:
    names = [escaped(name) for name in columns]
    lines = [names, ["---"] * len(names), *([escaped(cell) for cell in line] for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _shown(value: Any) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(_csv(value))
