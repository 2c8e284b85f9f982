"""Compare: which examples each of several models gets wrong (paper, Table 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from suture.views.grid import Column, Grid, column, stacked
from suture.views.render import image, render, standalone
from suture.views.style import BLUE, INK, MOST, dress, floats, label, name_rows, rows, sentence
from suture.views.text import count, number, p_value, percent
from suture.wording import several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.compare import Comparison


def figure(result: Comparison, ax: Axes | None = None) -> Axes:
    """Examples by who gets them wrong; those that nobody gets wrong are left out.

    Worry when "everybody" is the longest bar: such errors are in the data or out of every model's reach.
    """
    shown = result.patterns[result.patterns["wrong"] != "nobody"].head(MOST)
    if not len(shown):
        return sentence(ax or rows(2), "No model gets anything wrong.")
    ax = ax or rows(len(shown))
    counts = np.nan_to_num(floats(shown, "count"))
    ax.barh(range(len(shown)), counts, height=0.62, color=BLUE)
    for place, value in enumerate(counts):
        ax.annotate(count(value), (value, place), (4, 0), textcoords="offset points", va="center", color=INK)
    name_rows(ax, [label(name) for name in shown["wrong"]])
    dress(ax, title="Who gets it wrong", x="examples")
    return ax


def grids(result: Comparison) -> list[Grid]:
    """Models, Table 7's categories, and pairs of models."""
    models = [
        [str(r["model"]), count(r["errors"]), percent(r["accuracy"]), f"{percent(r['low'])} to {percent(r['high'])}"]
        for r in result.models.to_dict("records")
    ]
    categories = [[str(r["category"]), count(r["count"])] for r in result.categories.to_dict("records")]
    records = result.pairs.to_dict("records")
    differ = [
        [f"{r['a']}, {r['b']}", count(r["only_a_wrong"]), count(r["only_b_wrong"]), p_value(r["p_value"]),
         p_value(r["p_adjusted"]), percent(r["disagreement"])]
        for r in records
    ]  # fmt: skip
    overlap = [
        [f"{r['a']}, {r['b']}", count(r["both_wrong"]), count(r["both_expected"]), number(r["overlap"]),
         p_value(r["p_overlap"])]
        for r in records
    ]  # fmt: skip
    return [
        Grid(
            f"Models on {several(result.n, 'example')}",
            [Column("Model"), *column("Errors", "Accuracy", "95 % interval")],
            models,
        ),
        Grid("Who gets what wrong", [Column("Category"), *column("Examples")], categories, note="Rows overlap."),
        Grid(
            "Is one of a pair better?",
            [Column("a, b"), *column("only a wrong", "only b wrong", "McNemar p", "p, Holm", "disagree")],
            differ,
            note="Exact McNemar test; Holm: adjusted for the number of pairs.",
        ),
        Grid(
            "Do they err together?",
            [Column("a, b"), *column("both wrong", "by chance", "ratio", "p")],
            overlap,
            note="By chance: errors in common if the models erred independently (hypergeometric test).",
        ),
    ]


def table(result: Comparison) -> Table:
    """Models, categories and pairs, for a terminal."""
    return stacked(*(grid.rich() for grid in grids(result)))


def html(result: Comparison) -> Markup:
    """Figure and tables, for a notebook."""
    chart = image(lambda: figure(result), "Examples by the models that get them wrong.")
    return standalone(render("compare.html.j2", chart=chart, grids=grids(result)))
