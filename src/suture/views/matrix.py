"""The difference matrix: which classes are taken for which, after minus before, for the classes that changed most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from suture.views.grid import records
from suture.views.text import count, known, signed
from suture.wording import several

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from suture.stages.verify import Verification

MOST = 12  # classes: more rows and columns cannot be read side by side
STRONG = 1 / 3  # of the largest entry: from here on a cell has the stronger colour
Pair = tuple[str, str]


@dataclass(frozen=True)
class Matrix:
    """Examples by true class (rows) and predicted class (columns), both times; right ones on the diagonal.

    Attributes:
        classes: k names, in the case's order.
        of: how many classes there are.
        before, after: (k, k) counts, and with classes left out a last column (k, k + 1) that sums their columns.
    """

    classes: list[str]
    of: int
    before: NDArray[np.int64]
    after: NDArray[np.int64]


class Cell(NamedTuple):
    """A cell on the page: its number, its colour (``better``, ``worse``, ``zero`` or none), where it leads."""

    text: str
    tone: str
    target: str | None


class View(NamedTuple):
    """One of the three matrices on the page."""

    key: str
    label: str
    caption: str
    rows: list[tuple[str, list[Cell]]]


def matrix(result: Verification, most: int = MOST) -> Matrix | None:
    """The counts of the classes that changed most; None where there are fewer than two classes, or no confusions."""
    classes = {str(r["class"]): r for r in records(result.per_class)}
    pairs = [r for r in records(result.pairs) if str(r["true"]) != str(r["predicted"])]
    names = list(dict.fromkeys([*classes, *(str(r["predicted"]) for r in pairs)]))
    if len(names) < 2 or not pairs:
        return None
    shown = _most_changed(names, classes, pairs, most)
    place = {name: i for i, name in enumerate(shown)}
    k, rest = len(shown), len(shown)  # the column of the classes left out
    tables = []
    for when in ("before", "after"):
        counts = np.zeros((k, k + (len(names) > k)), np.int64)
        for name, i in place.items():
            counts[i, i] = _right(classes.get(name), when)
        for r in pairs:
            if str(r["true"]) in place:
                counts[place[str(r["true"])], place.get(str(r["predicted"]), rest)] += int(r[when])
        tables.append(counts)
    return Matrix(shown, len(names), *tables)


def _right(row: dict[str, Any] | None, when: str) -> int:
    """Right answers of a class; 0 where its accuracy is not known."""
    return round(row[when] * row["n"]) if row is not None and known(row[when]) else 0


def _most_changed(
    names: list[str], classes: dict[str, dict[str, Any]], pairs: list[dict[str, Any]], most: int
) -> list[str]:
    """The classes in whose row, column or diagonal most changed, in their order."""
    moved = dict.fromkeys(names, 0.0)
    for name, r in classes.items():
        moved[name] += abs(_right(r, "after") - _right(r, "before"))
    for r in pairs:
        for name in (str(r["true"]), str(r["predicted"])):
            moved[name] = moved.get(name, 0.0) + abs(int(r["change"]))
    if len(names) <= most:
        return names
    first = sorted(names, key=lambda name: -moved[name])[:most]
    kept = {name for name in first if moved[name]} or set(first)
    return [name for name in names if name in kept]


def views(found: Matrix, targets: dict[Pair, str]) -> list[View]:
    """Difference, before and after, ready for the page.

    Args:
        targets: (true, predicted) → the part of the page that shows examples of this confusion.
    """
    named = (
        ("difference", "Difference", "After minus before", found.after - found.before),
        ("before", "Before", "Before", found.before),
        ("after", "After", "After", found.after),
    )
    return [
        View(key, label, caption, _rows(found, counts, targets, difference=key == "difference"))
        for key, label, caption, counts in named
    ]


def _rows(
    found: Matrix, counts: NDArray[np.int64], targets: dict[Pair, str], *, difference: bool
) -> list[tuple[str, list[Cell]]]:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    largest = int(np.abs(counts if difference else errors).max(initial=1))
    rows = []
    for i, name in enumerate(found.classes):
        cells = []
        for j, value in enumerate(counts[i].tolist()):
            pair = (name, found.classes[j]) if j < len(found.classes) else (name, "")
            tone = _tone(value, largest, diagonal=i == j, difference=difference)
            cells.append(Cell(signed(value) if difference else count(value), tone, targets.get(pair)))
        rows.append((name, cells))
    return rows


def _tone(value: int, largest: int, *, diagonal: bool, difference: bool) -> str:
    """Colour of a cell: errors that became fewer are better, errors that became more are worse."""
    if not value:
        return "zero"
    if not difference and diagonal:
        return "right"
    good = (value > 0) == diagonal if difference else False
    strong = " strong" if abs(value) >= STRONG * largest else ""
    return ("better" if good else "worse") + strong


def note(found: Matrix) -> str:
    """How to read it, and what was left out."""
    said = (
        "Rows are true classes, columns predicted ones: on the diagonal stand the right answers, elsewhere the errors. "
        "Green: fewer errors or more right answers. "
        "Orange: the opposite."
    )
    if len(found.classes) == found.of:
        return said
    return (
        f"{said} Shown are the {several(len(found.classes), 'class', 'classes')} that changed most, of "
        f"{count(found.of)}; 'others' sums the columns of the rest, whose rows are in verify/pairs.csv."
    )
