"""Bars made of letters, for a terminal."""

from __future__ import annotations

import math
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from suture.wording import plain

PARTS = " ▏▎▍▌▋▊▉"  # eighths of a letter
WIDTH = 32  # letters of the longest bar
NAME = 22


class Bar(NamedTuple):
    """A row: what it is called, how long it is, where it is marked (sign → value), and what stands behind it."""

    name: str
    value: float
    marks: dict[str, float]
    behind: str = ""
    bold: bool = False


def bars(rows: list[Bar], legend: str) -> Table:
    """Rows below each other on one scale, with their marks; values that are not known get none."""
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    known = [x for row in rows for x in (row.value, *row.marks.values()) if math.isfinite(x) and x > 0]
    longest = max(known, default=1.0)
    for row in rows:
        marks = {sign: x / longest for sign, x in row.marks.items() if math.isfinite(x)}
        drawn = drawing(row.value / longest if math.isfinite(row.value) else 0.0, marks)
        table.add_row(
            Text(plain(row.name, NAME)), Text(drawn), Text(plain(row.behind)), style="bold" if row.bold else ""
        )
    whole = Table.grid()
    whole.add_row(table)
    whole.add_row(Text(plain(legend), style="dim"))
    return whole


def drawing(share: float, marks: dict[str, float], width: int = WIDTH) -> str:
    """A bar over `share` of the width, to an eighth of a letter, with marks set into it.

    >>> drawing(0.5, {"|": 0.75}, width=8)
    '████ |  '
    """
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    letters = list(("█" * (eighths // 8) + PARTS[eighths % 8].strip()).ljust(width))
    for sign, place in marks.items():
        letters[min(max(math.ceil(place * width) - 1, 0), width - 1)] = sign
    return "".join(letters)
