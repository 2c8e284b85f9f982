"""Localize as tables: a row per group of scores with intervals, nulls, and gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.views.grid import Column, Grid, column
from suture.views.profiles import (
    STANDS_OUT,
    are_shares,
    beside_first,
    column_of,
    first_shares,
    gains_of,
    highest,
    profiles_of,
    raw_scores,
    sizes_of,
)
from suture.views.text import NOTHING, number, percent
from suture.wording import several

if TYPE_CHECKING:
    import pandas as pd

    from suture.stages.localize import Localization

GUESSING = (
    "The model does no better than guessing, or than always giving the most frequent class: are --size, --mean and "
    "--std those it was trained with, and the classes in its order? Data that a function gives must be normalised "
    "there."
)
MOST_DIGITS = 6  # that tell a score from the line above which it stands out
LONGEST = 60  # groups in a table: all of them are in scores.csv
PAID = "held-out gain"
GAINS = "Held-out gain: fall of log(1 + loss) on examples that were not trained on."
OTHERS = "The other localizers"
ALL_SCORES = "Scores of every group are in localize/scores.csv."
TERMINAL = 80  # letters of a line that can be relied on
NAME = 22  # letters of a group's name that are never folded
SCATTER = "An interval below its score says that most of the score is scatter between examples."


def grid(result: Localization, *, narrow: bool = False) -> Grid:
    """Score with its interval, nulls, how often the group comes first, gain, shares, and marks: a row per group.

    Args:
        narrow: for a terminal, where bars show the shares, and gains beside nulls would not fit.
    """
    raw, shown = raw_scores(result), highest(raw_scores(result)["errors"], LONGEST)
    headings = _headings(result, narrow)
    cells = _cells(result, result.first, headings, shown)
    table = [[group, *row, _mark(result, group)] for group, row in zip(shown, cells, strict=True)]
    marked = frozenset(i for i, group in enumerate(shown) if group == result.top)
    more = f"{len(shown)} of {len(raw)} groups, the highest; all are in localize/scores.csv."
    notes = [
        more if len(shown) < len(raw) else "",
        SCATTER if (raw["high"] < raw["errors"]).any() else "",
        GAINS if PAID in headings else "",
    ]
    counts = (
        f"{several(result.n_errors, 'error')} in {several(result.n, 'example')} (accuracy {percent(result.accuracy)})"
    )
    title = f"{with_unit(result.first)}; {counts}" if result.first in STANDS_OUT else f"{result.first} of {counts}"
    columns = [Column("Group"), *column(*headings), Column("flagged")]
    return Grid(title, columns, table, marked, " ".join(filter(None, notes)))


def warnings(result: Localization) -> list[str]:
    """What puts all the rest in doubt: labels that explain the errors, or else settings that may."""
    said = [f"{text[:1].upper()}{text[1:]}." for text in result.warnings]
    return said or ([GUESSING] if result.guessing else [])


def beside(result: Localization) -> Grid:
    """Where the first localizer has no nulls: one that has, with them; otherwise nothing."""
    name = beside_first(result)
    if name is None:
        return Grid("", [], [])
    headings = [name, *_null_headings(result, name)]
    shown = highest(raw_scores(result)["errors"], LONGEST)
    cells = _cells(result, name, headings, shown)
    table = [[group, *row] for group, row in zip(shown, cells, strict=True)]
    raw = raw_scores(result, name)
    note = SCATTER if (raw["high"] < raw["errors"]).any() else ""
    return Grid(f"Beside it, {name} of the errors", [Column("Group"), *column(*headings)], table, note=note)


def gains(result: Localization) -> Grid:
    """Where treating pays, as a table of its own."""
    if gains_of(result)["gain"].isna().all():
        return Grid("", [], [])
    shown = highest(raw_scores(result)["errors"], LONGEST)
    cells = _cells(result, result.first, [PAID], shown)
    table = [[group, *row] for group, row in zip(shown, cells, strict=True)]
    return Grid("Where treating pays", [Column("Group"), *column(PAID)], table, note=GAINS)


def _null_headings(result: Localization, name: str) -> list[str]:
    raw, reference = raw_scores(result, name), result.null_reference
    optional = {
        "correct": raw["correct"].notna().any(),
        "random init": raw["random"].notna().any(),
        "reference": reference is not None and column_of(reference, name, raw.index).notna().any(),
        "first": first_shares(result, name).notna().any(),
    }
    return [heading for heading, there in optional.items() if there]


def _headings(result: Localization, narrow: bool) -> list[str]:
    sizes, nulls = sizes_of(result), _null_headings(result, result.first)
    optional = {
        PAID: gains_of(result)["gain"].notna().any() and not (narrow and nulls),
        "share of score": are_shares(result) and not narrow,
        "share of weights": bool(sizes.notna().all()) and bool(len(sizes)) and not narrow,
    }
    found = [name for name, there in optional.items() if there]
    return [result.first, *nulls, *found]


def _cells(result: Localization, name: str, headings: list[str], shown: list[str]) -> list[list[str]]:
    """A list per group of what one localizer and the gains say, in the order of the headings; its own comes first."""
    raw, profiles, sizes = raw_scores(result, name), profiles_of(result), sizes_of(result)
    first, gains = first_shares(result, name), gains_of(result)
    reference = result.null_reference if result.null_reference is not None else result.scores
    content = {
        name: lambda g: _with_interval(raw.loc[g, ["errors", "low", "high"]], line=STANDS_OUT.get(name)),
        "correct": lambda g: number(raw.loc[g, "correct"]),
        "random init": lambda g: number(raw.loc[g, "random"]),
        "reference": lambda g: number(reference.loc[g, name]),
        "first": lambda g: percent(first[g], 0),
        PAID: lambda g: _with_interval(gains.loc[g, ["gain", "low", "high"]], digits=2),
        "share of score": lambda g: percent(profiles.loc[g, "errors"]),
        "share of weights": lambda g: percent(sizes[g] / sizes.sum()),
    }
    return [[content[heading](g) for heading in headings] for g in shown]


def _with_interval(numbers: Any, digits: int = 3, line: float | None = None) -> str:
    """A number and, where it is known, its interval.

    Args:
        line: rounding does not take the number across it.
    """
    value, low, high = np.asarray(numbers, float).tolist()
    known = bool(np.isfinite([low, high]).all())
    said = on_its_side(value, digits, line)
    return f"{said} [{number(low, 2)}, {number(high, 2)}]" if known else said


def on_its_side(value: float, digits: int, line: float | None) -> str:
    """A number with as many digits as tell it from the line, up to six."""
    if line is not None and np.isfinite(value) and value != line:
        while digits < MOST_DIGITS and float(f"{value:.{digits}g}") == line:
            digits += 1
    return number(value, digits)


def others(result: Localization, *, narrow: bool = False) -> Grid:
    """Scores of the localizers that did not decide, beside their nulls where they have some.

    Args:
        narrow: for a terminal: scores alone where both do not fit; of more localizers than fit, a row each with the
            groups that score highest.
    """
    shown_beside = beside_first(result)
    names = [str(name) for name in result.scores.columns[1:] if name != shown_beside]
    if all(_scores(result, name).isna().all() for name in names):
        return Grid("", [], [])
    whole = _side_by_side(result, names, nulls=True)
    if not narrow or _fits(whole):
        return whole
    alone = _side_by_side(result, names, nulls=False)
    return alone if _fits(alone) else _leaders(result, names)


def _scores(result: Localization, name: str, of: str = "errors") -> pd.Series:
    return raw_scores(result, name)[of]


def _side_by_side(result: Localization, names: list[str], *, nulls: bool) -> Grid:
    """A row per group, a column per localizer, with or without its nulls."""
    columns = {}
    for name in names:
        columns[name] = _scores(result, name)
        for what, heading in (("correct", "correct"), ("random", "random init")):
            null = _scores(result, name, what)
            if nulls and null.notna().any():
                columns[f"{name}, {heading}"] = null
    shown = highest(_scores(result, result.first), LONGEST)
    table = [[group, *(number(scores[group]) for scores in columns.values())] for group in shown]
    return Grid(OTHERS, [Column("Group"), *column(*columns)], table)


def _leaders(result: Localization, names: list[str]) -> Grid:
    """A row per localizer: its two highest groups."""
    table = []
    for name in names:
        best = _scores(result, name).dropna().sort_values(ascending=False, kind="stable")[:2]
        cells = [cell for group, score in best.items() for cell in (str(group), number(score))]
        table.append([name, *cells, *[NOTHING] * (4 - len(cells))])
    score = Column("score", numeric=True)
    columns = [Column("Localizer"), Column("highest"), score, Column("second"), score]
    return Grid(f"{OTHERS}: the groups that they score highest", columns, table, note=ALL_SCORES)


def _fits(grid: Grid) -> bool:
    """Whether a terminal shows it without folding headings or numbers; long names of groups may be folded."""
    texts = [[name, *(row[i] for row in grid.rows)] for i, (name, _) in enumerate(grid.columns)]
    first, *rest = (max(map(len, below)) for below in texts)
    widths = [min(first, NAME), *rest]
    return sum(width + 3 for width in widths) + 1 <= TERMINAL  # a line and two spaces beside each


def _mark(result: Localization, group: str) -> str:
    marks = (("top", group == result.top), ("flagged", group in result.flagged))
    return ", ".join(mark for mark, holds in marks if holds)


def unit_of(name: str) -> str:
    return f"above {STANDS_OUT[name]:g}: stands out"


def with_unit(name: str) -> str:
    return f"{name} ({unit_of(name)})" if name in STANDS_OUT else name
