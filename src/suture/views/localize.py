"""Localize: scores of every group beside what they are without errors (paper, Table 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from suture.views.grid import Column, Grid, column
from suture.views.render import image, render, standalone
from suture.views.style import (
    BLUE,
    INK,
    MOST,
    VERMILLION,
    dress,
    floats,
    label,
    legend,
    name_rows,
    rows,
    sentence,
)
from suture.views.text import count, listed, number, percent, plain, several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.localize import Localization

GUESSING = "The model does no better than guessing: are --size, --mean and --std those it was trained with?"
LONGEST = 60  # groups in a table: all of them are in scores.csv


def figure(result: Localization, ax: Axes | None = None) -> Axes:
    """Each group's share of the score: on errors, on as many correct examples, at random initialisation.

    Shares, because errors have larger losses and so larger gradients everywhere; what matters is where they
    differ. Worry when a group's bar reaches far beyond both of its marks: this is where errors are unlike
    the rest. Bars that end at their marks show the architecture, not the errors.
    """
    if not drawable(result):
        return sentence(ax or rows(2), "There are no scores to draw.")
    shares = _shares(result)
    profiles = _profiles(result) * (100 if shares else 1)
    shown = _highest(profiles["errors"], MOST)
    ax = ax or rows(len(shown))
    places = np.arange(len(shown))
    flagged = np.array([group in result.flagged for group in shown])
    bars = floats(profiles.loc[shown], "errors")
    for hit, colour, name in ((flagged, VERMILLION, "errors, flagged group"), (~flagged, BLUE, "errors")):
        if hit.any():
            ax.barh(places[hit], bars[hit], height=0.62, color=colour, label=name)
    _mark_null(ax, floats(profiles.loc[shown], "correct"), "|", "correct examples", markersize=14, markeredgewidth=2.2)
    _mark_null(ax, floats(profiles.loc[shown], "random"), "o", "random weights", markersize=5, markerfacecolor="white")
    name_rows(ax, [f"{plain(group, 28)} (top)" if group == result.top else group for group in shown])
    more = f", {len(shown)} of {len(profiles)} groups" if len(shown) < len(profiles) else ""
    name = label(result.first)
    dress(ax, title=f"Where the {name} of errors lies{more}", x=f"share of {name} (%)" if shares else name)
    legend(ax, columns=2)
    return ax


def _mark_null(ax: Axes, values: Any, marker: str, name: str, **style: Any) -> None:
    if np.isfinite(values).any():
        ax.plot(values, np.arange(len(values)), marker, color=INK, label=name, **style)


def drawable(result: Localization) -> bool:
    """Whether there is a finite score to draw."""
    return bool(np.isfinite(floats(result.scores, result.first)).any())


def _raw(result: Localization) -> pd.DataFrame:
    """Index group; columns errors, correct, random: the first localizer's scores, NaN where not finite."""
    tables = {"errors": result.scores, "correct": result.null_correct, "random": result.null_random}
    raw = {key: _column(table, result.first, result.scores.index) for key, table in tables.items()}
    return pd.DataFrame(raw).replace([np.inf, -np.inf], np.nan)


def _column(table: pd.DataFrame, name: str, groups: pd.Index) -> pd.Series:
    values = floats(table, name) if name in table else np.full(len(table), np.nan)
    return pd.Series(values, index=table.index).reindex(groups)


def _shares(result: Localization) -> bool:
    """Whether the scores can be read as parts of a whole: none is negative, and one is not zero."""
    raw = _raw(result)
    return not bool((raw < 0).any(axis=None)) and bool(raw["errors"].sum() > 0)


def _profiles(result: Localization) -> pd.DataFrame:
    """Scores as shares of their sum over the groups, where that makes sense; else as they are."""
    raw = _raw(result)
    sums = raw.sum()
    return raw / sums.where(sums > 0) if _shares(result) else raw


def _highest(scores: pd.Series, most: int) -> list[str]:
    """The groups with the highest scores, in the model's order."""
    kept = set(scores.sort_values(ascending=False, kind="stable").index[:most])
    return [group for group in scores.index if group in kept]


def _sizes(result: Localization) -> pd.Series:
    """Parameters per group, which ‖∇_g‖ and ‖∇_g‖/√n_g give away where both were measured."""
    norm, rms = (_column(result.scores, name, result.scores.index) for name in ("grad_norm", "rms"))
    return ((norm / rms.where(rms > 0)) ** 2).round().replace(np.inf, np.nan)


def grid(result: Localization) -> Grid:
    """Score, both nulls, shares of the score and of the parameters, and mark, a row per group."""
    raw, profiles, sizes = _raw(result), _profiles(result), _sizes(result)
    shown = _highest(raw["errors"], LONGEST)
    known = bool(sizes.notna().all()) and bool(len(sizes))
    columns = [Column("Group"), *column(result.first, "correct", "random init")]
    columns += column("reference") if result.null_reference is not None else []
    columns += column("share of score") if _shares(result) else []
    columns += column("share of weights") if known else []
    table = []
    for group in shown:
        row = [group, *(number(raw.loc[group, key]) for key in ("errors", "correct", "random"))]
        row += [number(result.null_reference.loc[group, result.first])] if result.null_reference is not None else []
        row += [percent(profiles.loc[group, "errors"])] if _shares(result) else []
        row += [percent(sizes[group] / sizes.sum())] if known else []
        table.append([*row, _mark(result, group)])
    marked = frozenset(i for i, group in enumerate(shown) if group == result.top)
    more = f"{len(shown)} of {len(raw)} groups, the highest; all are in localize/scores.csv."
    note = more if len(shown) < len(raw) else ""
    note = " ".join([note, GUESSING] if note else [GUESSING]) if result.guessing else note
    right = f"accuracy {percent(result.accuracy)}"
    title = f"{result.first} of {several(result.n_errors, 'error')} in {count(result.n)} examples ({right})"
    return Grid(title, [*columns, Column("flagged")], table, marked, note)


def others(result: Localization) -> Grid:
    """Scores of the localizers that did not decide, beside those of correct examples."""
    names = [str(name) for name in result.scores.columns[1:]]
    groups = result.scores.index
    values = {
        name: (_column(result.scores, name, groups), _column(result.null_correct, name, groups)) for name in names
    }
    shown = _highest(_raw(result)["errors"], LONGEST)
    table = [[group, *(number(series[group]) for name in names for series in values[name])] for group in shown]
    headings = [heading for name in names for heading in (name, f"{name}, correct")]
    return Grid("The other localizers", [Column("Group"), *column(*headings)], table if names else [])


def _mark(result: Localization, group: str) -> str:
    marks = (("top", group == result.top), ("flagged", group in result.flagged))
    return ", ".join(mark for mark, holds in marks if holds)


def table(result: Localization) -> Table:
    """Scores beside their nulls, for a terminal."""
    return grid(result).rich()


def html(result: Localization) -> Markup:
    """Figure and table, for a notebook."""
    return standalone(section(result))


def section(result: Localization) -> Markup:
    """Figure, tables and what may be said, for the page."""
    alt = f"Share of {result.first} per group on errors, on correct examples and at random weights."
    return render(
        "localize.html.j2",
        result=result,
        findings=findings(result),
        chart=image(lambda: figure(result), alt) if drawable(result) else None,
        grid=grid(result),
        others=others(result),
    )


def findings(result: Localization) -> list[str]:
    """What the scores say, a sentence each."""
    examples = f"{several(result.n, 'example')} of the diagnose split"
    if not result.n_errors:
        return [f"The model is right on all {examples}, so there is nothing to localize and no group is flagged."]
    found = [f"The model is wrong on {count(result.n_errors)} of the {examples} (accuracy {percent(result.accuracy)})."]
    found.append("No group stands out." if result.top is None else _top_sentence(result, result.top))
    if result.flagged:
        found.append(f"Flagged for treatment: {listed(result.flagged)}.")
    if not result.n_null:
        found.append("No example was right, so there is no null from correct examples.")
    return found


def _top_sentence(result: Localization, top: str) -> str:
    profiles = _profiles(result)
    said = f"{plain(top, 60)} has the highest {result.first}"
    if _shares(result) and top in profiles.index:
        parts = profiles.loc[top]
        said += f": {percent(parts['errors'])} of the total"
        nulls = (("correct", "on correct examples"), ("random", "at random weights"))
        beside = [f"{percent(parts[key])} {where}" for key, where in nulls if np.isfinite(parts[key])]
        said += f", against {' and '.join(beside)}" if beside else ""
    null = profiles["correct"]
    if null.notna().any() and null.idxmax() == top:
        said += ". It also comes first on correct examples, so its place says more about the network than the errors"
    return said + "."
