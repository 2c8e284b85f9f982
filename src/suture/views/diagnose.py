"""Diagnose: which class is taken for which, and the group each confusion goes to (paper, Table 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.views.grid import Column, Grid, column
from suture.views.render import image, render, standalone, thumbnail
from suture.views.style import BLUE, INK, MOST, dress, floats, label, name_rows, rows, sentence
from suture.views.text import NOTHING, count, number, percent, plain, several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.diagnose import Diagnosis

CLASS = 18  # characters of a class name where two of them share a row of a figure


def figure(result: Diagnosis, ax: Axes | None = None) -> Axes:
    """Errors per confusion pair, the attributed ones named with their group.

    Worry when one pair holds a large part of the errors: it can be asked for by name.
    """
    pairs = result.pairs if len(result.pairs) else result.confusion
    if not len(pairs):
        return sentence(ax or rows(2), "There are no confusions to draw.")
    shown = pairs.head(MOST)
    ax = ax or rows(len(shown))
    counts = np.nan_to_num(floats(shown, "count"))
    ax.barh(range(len(shown)), counts, height=0.62, color=BLUE)
    for place, row in enumerate(shown.to_dict("records")):
        said = f"{count(row['count'])} · {_attributed(row, 24)}" if "group" in row else count(row["count"])
        ax.annotate(label(said, None), (counts[place], place), (4, 0), textcoords="offset points", va="center",
                    fontsize="small", color=INK)  # fmt: skip
    name_rows(ax, [_name(row) for row in shown.to_dict("records")])
    ax.set_xlim(0, max(counts.max() * 1.35, 1))
    more = f", {len(shown)} of {len(pairs)}" if len(shown) < len(pairs) else ""
    dress(ax, title=f"Most frequent confusions: true → predicted{more}", x="errors")
    return ax


def _attributed(row: Any, limit: int) -> str:
    """The group of a pair, with its ratio where that is known."""
    ratio = number(row["ratio"])
    return plain(row["group"], limit) + (f" × {ratio}" if ratio != NOTHING else "")


def _name(row: Any) -> str:
    return f"{plain(row['true'], CLASS)} → {plain(row['predicted'], CLASS)}"


def grid(result: Diagnosis) -> Grid:
    """A row per attributed pair; without attribution, per confusion."""
    attributed = "group" in result.pairs and len(result.pairs)
    pairs = result.pairs if attributed else result.confusion.head(MOST)
    columns = [Column("True"), Column("Predicted"), *column("Errors", "Share")]
    if attributed:
        columns += [Column("Group"), *column("Ratio")]
    table = [
        [str(row["true"]), str(row["predicted"]), count(row["count"]), percent(row["share"])]
        + ([str(row["group"]), number(row["ratio"])] if attributed else [])
        for row in pairs.to_dict("records")
    ]
    note = (
        "Ratio: the group's share of the gradient norms on this pair over its share on the other pairs. "
        "Near 1, nothing sets the pair apart."
        if attributed
        else ""
    )
    return Grid(f"Confusions among {several(result.n_errors, 'error')}", columns, table, note=note)


def table(result: Diagnosis) -> Table:
    """Confusion pairs with their groups, for a terminal."""
    return grid(result).rich()


def html(result: Diagnosis) -> Markup:
    """Figure, table and exemplars, for a notebook."""
    return standalone(section(result))


def section(result: Diagnosis) -> Markup:
    """Figure, table and exemplars, for the page."""
    drawn = bool(len(result.pairs) or len(result.confusion))
    alt = "Errors per confusion pair, most frequent first, with the attributed group."
    return render(
        "diagnose.html.j2",
        result=result,
        chart=image(lambda: figure(result), alt) if drawn else None,
        grid=grid(result),
        exemplars=_exemplars(result),
    )


def _exemplars(result: Diagnosis) -> list[dict[str, Any]]:
    """A row of thumbnails per pair that has pictures."""
    shown: list[dict[str, Any]] = []
    for row in result.pairs.to_dict("records"):
        pictures = result.pictures.get(f"{row['true']} → {row['predicted']}")
        if pictures is None or not len(pictures):
            continue
        alt = f"{plain(row['true'], 40)} taken for {plain(row['predicted'], 40)}"
        shown.append({
            "true": row["true"], "predicted": row["predicted"], "errors": row["count"],
            "attributed": _attributed(row, 60), "thumbnails": [thumbnail(picture, alt) for picture in pictures],
        })  # fmt: skip
    return shown


def attributions(result: Diagnosis | None) -> dict[tuple[str, str], str]:
    """(true, predicted) → the group it was attributed to."""
    if result is None or "group" not in result.pairs:
        return {}
    return {(str(r["true"]), str(r["predicted"])): str(r["group"]) for r in result.pairs.to_dict("records")}
