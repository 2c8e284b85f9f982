"""Diagnose: which class is taken for which, the group each confusion goes to (paper, Table 9), and what lies behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.stages.diagnose import SMALLEST_PAIR
from suture.stats import ALPHA
from suture.views import causes, slices, subgroups, suspects
from suture.views.grid import Column, Grid, column, lines, stacked
from suture.views.render import image, render, standalone, thumbnail
from suture.views.style import BLUE, INK, MOST, VERMILLION, dress, floats, label, legend, name_rows, rows, sentence
from suture.views.text import NOTHING, count, known, listed, number, p_value
from suture.wording import plain, several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.diagnose import Diagnosis

NONE = "none stands out"
MOST_CAUSES = 4  # in a line
NEARLY_ALL, SEVERAL_ERRORS = 0.9, 10  # share of the errors, and errors, from which one answer is worth a sentence
CLASS = 18  # characters of a class name where two of them share a row of a figure


def figure(result: Diagnosis, ax: Axes | None = None) -> Axes:
    """Errors per confusion pair beside what chance expects, with the group that stands out.

    Worry when one pair holds far more errors than chance gives it: it can be asked for by name.
    """
    pairs = result.pairs if len(result.pairs) else result.confusion
    if not len(pairs):
        return sentence(ax or rows(2), "There are no confusions to draw.")
    shown = pairs.head(MOST)
    ax = ax or rows(len(shown))
    counts = np.nan_to_num(floats(shown, "count"))
    ax.barh(range(len(shown)), counts, height=0.62, color=BLUE)
    for place, row in enumerate(shown.to_dict("records")):
        group = _attributed(row, 24) if "group" in row else ""
        said = " · ".join(part for part in (count(row["count"]), group) if part)
        ax.annotate(label(said, None), (counts[place], place), (4, 0), textcoords="offset points", va="center",
                    fontsize="small", color=INK)  # fmt: skip
    by_chance = floats(shown, "expected")
    if np.isfinite(by_chance).any():
        ax.plot(by_chance, range(len(shown)), "|", color=VERMILLION, markersize=11, markeredgewidth=2,
                label="expected by chance")  # fmt: skip
        legend(ax)
    name_rows(ax, [_name(row) for row in shown.to_dict("records")])
    ax.set_xlim(0, max(counts.max() * 1.35, 1))
    more = f", {len(shown)} of {len(pairs)}" if len(shown) < len(pairs) else ""
    dress(ax, title=f"Most frequent confusions: true → predicted{more}", x="errors")
    return ax


def _attributed(row: Any, limit: int) -> str:
    """The group that stands out for a pair, with its ratio; nothing where none does."""
    if not row.get("stands_out", False):
        return ""
    return f"{plain(row['group'], limit)} × {number(row['ratio'])}"


def _name(row: Any, limit: int = CLASS) -> str:
    return f"{plain(row['true'], limit)} → {plain(row['predicted'], limit)}"


def grid(result: Diagnosis) -> Grid:
    """A row per attributed pair; without attribution, per confusion."""
    attributed = "group" in result.pairs and len(result.pairs)
    pairs = result.pairs if attributed else result.confusion.head(MOST)
    columns = [Column("True"), Column("Predicted"), *column("Errors", "By chance")]
    if attributed:
        columns += [Column("Pulls most on"), *column("Ratio [95 %]", "p")]
    asked = causes.by_pair(result) if attributed else {}
    columns += [Column("Cause")] if asked else []
    table = [
        [str(row["true"]), str(row["predicted"]), count(row["count"]), number(row.get("expected"), 2)]
        + ([_group(row), _interval(row), p_value(row.get("p"))] if attributed else [])
        + ([causes.answer(asked.get((str(row["true"]), str(row["predicted"]))))] if asked else [])
        for row in pairs.to_dict("records")
    ]
    note = (
        "By chance: if what an error is taken for did not depend on what it is. Pulls most on: the group whose share "
        "of the gradient is raised on this pair. Ratio: that share over the one on all other errors; p is corrected "
        "for groups and pairs."
        if attributed
        else ""
    )
    return Grid(f"Confusions among {several(result.n_errors, 'error')}", columns, table, note=note)


def _group(row: Any) -> str:
    return str(row["group"]) if row.get("stands_out", False) else NONE


def _interval(row: Any) -> str:
    return f"{number(row['ratio'])} [{number(row.get('low'))}, {number(row.get('high'))}]"


def table(result: Diagnosis) -> Table:
    """What was found in a sentence, then confusions with their groups and causes, for a terminal."""
    parts = subgroups.sentence(result), slices.brief(result) or slices.why_not(result), suspects.brief(result)
    more = [line for line in parts if line]
    if not len(result.pairs):
        return stacked(grid(result).rich(), lines([*leads(result), *more]))
    found = causes.by_pair(result)
    rows = []
    for row in result.pairs.to_dict("records"):
        cause = found.get((str(row["true"]), str(row["predicted"])))
        rows.append([_name(row), f"{count(row['count'])} ({number(row.get('expected'), 2)})",
                     _attributed(row, 16) or NOTHING, causes.answer(cause) if found else NOTHING])  # fmt: skip
    columns = [Column("True → predicted"), *column("Errors (by chance)"), Column("Pulls most on"), Column("Cause")]
    short = Grid(f"Confusions among {several(result.n_errors, 'error')}", columns, rows, note=elsewhere(result))
    first = [summary(result)] if summary(result) else []
    return stacked(lines(first), short.rich(), lines([*causes.sentences(result), *leads(result), *more]))


def summary(result: Diagnosis) -> str:
    """The causes that were found, in a line: ``"eight taken for three: background"``; nothing where none was."""
    said = [causes.brief(row) for row in result.causes.to_dict("records") if causes.known_text(row["family"])]
    more = [f"{count(len(said) - MOST_CAUSES)} more"] if len(said) > MOST_CAUSES else []
    return "; ".join([*said[:MOST_CAUSES], *more])


def elsewhere(result: Diagnosis) -> str:
    """How many errors are in none of the pairs that are looked at; nothing where none are."""
    left = int(result.confusion["count"].sum() - result.pairs["count"].sum()) if len(result.pairs) else 0
    if left <= 0:
        return ""
    frequent = int((result.confusion["count"] >= SMALLEST_PAIR).sum()) > len(result.pairs)
    where = "in other pairs" if frequent else f"in pairs with fewer than {SMALLEST_PAIR}"
    return f"{count(left)} of {several(result.n_errors, 'error')} {'is' if left == 1 else 'are'} {where}."


def html(result: Diagnosis) -> Markup:
    """Figure, table and exemplars, for a notebook."""
    return standalone(section(result))


def section(result: Diagnosis) -> Markup:
    """Figures, tables and pictures, for the page."""
    drawn = bool(len(result.pairs) or len(result.confusion))
    alt = "Errors per confusion pair, most frequent first, beside what chance expects, with the group that stands out."
    probed = "A row per change of the pictures, a column per confusion: the way back to the truth. The table says it."
    return render(
        "diagnose.html.j2",
        result=result,
        opening=opening(result),
        chart=image(lambda: figure(result), alt) if drawn else None,
        grid=grid(result),
        elsewhere=elsewhere(result),
        exemplars=_exemplars(result),
        said=causes.sentences(result),
        causes=causes.grid(result),
        matrix=image(lambda: causes.figure(result), probed) if len(result.probes) else None,
        details=causes.details(result),
        subgroups=subgroups.sentence(result),
        by_value=subgroups.grid(result),
        slices=slices.shown(result),
        why_no_slices=slices.why_not(result),
        slice_grids=[slices.grid(result), slices.probes(result)],
        doubts=suspects.sentence(result),
        suspects=suspects.grid(result),
        suspected=suspects.gallery(result),
        removable=suspects.removable(result),
        caution=suspects.caution(result),
    )


def leads(result: Diagnosis) -> list[str]:
    """`opening`, where there is something to say."""
    return [said] if (said := opening(result)) else []


def opening(result: Diagnosis) -> str:
    """What was found, in a sentence or two."""
    if not len(result.confusion):
        return ""
    said = f"{_one_answer(result)}{_most_often(result)} "
    attributed = [row for row in result.pairs.to_dict("records") if row.get("stands_out", False)]
    if not len(result.pairs):
        return said + "No pair is frequent enough to be attributed to a group."
    if not attributed:
        return said + f"No group stands out for any of the {several(len(result.pairs), 'pair')} looked at."
    groups = listed([f"{plain(row['group'], 40)} for {_name(row, 40)}" for row in attributed])
    return said + f"What stands out: {groups}."


def _most_often(result: Diagnosis) -> str:
    """The pair that is surest to be more frequent than chance; else the most frequent one, and that none is."""
    rows = result.confusion.to_dict("records")
    tested = [row for row in rows if known(row.get("p_chance"))]  # an older suture knew no p
    beyond = [row for row in tested if row["p_chance"] < ALPHA]
    row = min(beyond, key=lambda row: row["p_chance"]) if beyond else rows[0]
    said = f"{plain(row['true'], 40)} is taken for {plain(row['predicted'], 40)}: {count(row['count'])} of "
    said += several(result.n_errors, "error")
    by_chance = number(row.get("expected"), 2)
    if by_chance != NOTHING:
        said += f", where chance alone would give {by_chance}"
    if beyond:
        return f"Most clearly beyond chance, {said} (p = {p_value(row['p_chance'])})."
    return f"Most often {said}{'; no pair is clearly more frequent than chance' if tested else ''}."


def _one_answer(result: Diagnosis) -> str:
    """That (nearly) all errors are taken for one class, where there are others that they could be taken for."""
    counts = result.confusion.groupby("predicted")["count"].sum()
    answer, most = counts.idxmax(), int(counts.max())
    classes = {*result.confusion["true"], *result.confusion["predicted"]}
    if len(classes) < 3 or result.n_errors < SEVERAL_ERRORS or most < NEARLY_ALL * result.n_errors:
        return ""
    return f"{count(most)} of {several(result.n_errors, 'error')} are taken for {plain(answer, 40)}. "


def _exemplars(result: Diagnosis) -> list[dict[str, Any]]:
    """Rows of thumbnails per pair that has pictures: as they are, and without the cause."""
    shown: list[dict[str, Any]] = []
    named = causes.by_pair(result)
    for row in result.pairs.to_dict("records"):
        name = f"{row['true']} → {row['predicted']}"
        if not len(result.pictures.get(name, ())):
            continue
        alt = f"{plain(row['true'], 40)} taken for {plain(row['predicted'], 40)}"
        cause = named.get((str(row["true"]), str(row["predicted"])))
        shown.append({
            "true": row["true"], "predicted": row["predicted"], "errors": row["count"],
            "expected": number(row.get("expected"), 2), "group": _attributed(row, 60),
            "thumbnails": [thumbnail(picture, alt) for picture in result.pictures[name]],
            "changed": [thumbnail(picture, f"{alt}, without the cause") for picture in result.changed.get(name, ())],
            "cause": causes.answer(cause) if named else "",
        })  # fmt: skip
    return shown


def attributions(result: Diagnosis | None) -> dict[tuple[str, str], str]:
    """(true, predicted) → the group that stands out for it, or a dash; a row per pair that was looked at."""
    if result is None or "group" not in result.pairs:
        return {}
    return {
        (str(row["true"]), str(row["predicted"])): str(row["group"]) if row.get("stands_out", False) else NOTHING
        for row in result.pairs.to_dict("records")
    }
