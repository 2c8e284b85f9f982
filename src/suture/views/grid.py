"""A table once, as data, and its three forms: terminal, page, Markdown."""

import re
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from suture.views.render import render
from suture.wording import plain

TERMINAL_NAME = 40  # characters of a name in a terminal


class Column(NamedTuple):
    """A heading, and whether numbers stand below it (aligned to the right)."""

    label: str
    numeric: bool = False


def column(*labels: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(label, numeric=True) for label in labels]


@dataclass(frozen=True)
class Grid:
    """A small table of text; the first cell of a row names it.

    Attributes:
        caption: what the rows are.
        columns: headings.
        rows: cells; foreign strings are made safe in each form, so they are given as they are.
        marked: rows that stand out.
        note: one sentence below.
    """

    caption: str
    columns: list[Column]
    rows: list[list[str]]
    marked: frozenset[int] = frozenset()
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.rows)

    def rich(self) -> Table:
        """For a terminal; strings are never read as markup."""
        table = Table(
            title=Text(self.caption), caption=Text(self.note) if self.note else None,
            title_justify="left", caption_justify="left", title_style="bold",
        )  # fmt: skip
        for name, numeric in self.columns:
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for i, row in enumerate(self.rows):
            table.add_row(
                *(Text(plain(cell, TERMINAL_NAME)) for cell in row), style="bold" if i in self.marked else None
            )
        return table

    def html(self) -> Markup:
        """For the page and notebooks; scrolls inside its own frame when it is too wide."""
        return render("grid.html.j2", grid=self)

    def markdown(self) -> str:
        """For a pull request or a log."""
        lines = [f"**{escaped(self.caption)}**", ""] if self.caption else []
        lines.append(_pipes([name for name, _ in self.columns]))
        lines.append(_pipes(["---:" if numeric else "---" for _, numeric in self.columns], raw=True))
        lines += [_pipes(row) for row in self.rows]
        return "\n".join([*lines, *(["", escaped(self.note)] if self.note else []), ""])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def lines(sentences: list[str]) -> Table:
    """Sentences below each other, for a terminal."""
    grid = Table.grid()
    for sentence in sentences:
        grid.add_row(Text(plain(sentence)))
    return grid


def stacked(*tables: Table) -> Table:
    """Tables below each other, as one."""
    grid = Table.grid(padding=(0, 0, 1, 0))
    for table in tables:
        grid.add_row(table)
    return grid


def _pipes(cells: list[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else [escaped(cell) for cell in cells])} |"


def escaped(text: str) -> str:
    """Foreign text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]|~#!$])", r"\\\1", escape(plain(text), quote=False))
