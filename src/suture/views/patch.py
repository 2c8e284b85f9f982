"""A patch by itself: what it is for, how much it changes and how far, what was measured of it."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from rich.text import Text

from suture.patch import UNDO
from suture.rundir import write_atomic, write_json
from suture.views.bars import Bar, bars
from suture.views.grid import Column, Grid, column, escaped, lines, stacked
from suture.views.render import image, render, standalone
from suture.views.style import BLUE, INK, MOST, dress, floats, label, name_rows, rows, sentence
from suture.views.text import NOTHING, count, known, listed, number, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.patch import Inspection

LONGEST = 60  # groups in a table: all of them are in the JSON
TENSORS = 20  # tensors in a table
WORDS = 300  # characters of a plan or a version: a stranger may have written a book


def figure(result: Inspection, ax: Axes | None = None) -> Axes:
    """How far each group moved, relative to its size; the groups that moved most.

    Worry when a group moved by as much as it was long (1): little of it is left.
    """
    table = _most(result.groups, MOST)
    if not known(result.change) or not len(table):
        return sentence(ax or rows(2), result.note or "The patch changes nothing.")
    ax = ax or rows(len(table))
    change = floats(table, "change")
    ax.barh(range(len(table)), [x if math.isfinite(x) else 0.0 for x in change], height=0.62, color=BLUE)
    for place, value in enumerate(change):
        text, at = _relative(value), value if math.isfinite(value) else 0.0
        ax.annotate(text, (at, place), (4, 0), textcoords="offset points", va="center", color=INK)
    name_rows(ax, [label(name) for name in table.index])
    ax.margins(x=0.15)
    dress(ax, title="How far each group moved", x="‖new − old‖ / ‖old‖")
    return ax


def facts(result: Inspection) -> Grid:
    """What the patch is for and how much it changes."""
    patch = result.patch
    tied = [f"{name} = {original}" for name, original in patch.aliases.items()]
    found = [
        ["kind", "undo: leads back from a repair" if patch.undo else "patch"],
        ["plan", plain(patch.plan, WORDS)],
        ["made by", f"suture {plain(patch.version, WORDS)}" if patch.version else ""],
        ["base sha256", patch.base],
        ["result sha256", patch.result or "not said"],
        ["tensors changed", count(len(patch))],
        ["parameters in them", count(patch.size)],
        ["of these changed", _part(result.changed, patch.size) if known(result.changed) else ""],
        ["moved", f"{_relative(result.change)} of their norm" if known(result.change) and len(patch) else ""],
        ["tied copies", listed(tied)],
        ["route", _route(patch.margin)],
    ]
    return Grid("The patch", [Column("Part"), Column("Value")], [row for row in found if row[1]])


def _route(margin: float | None) -> str:
    return "" if margin is None else f"answers only where it is surer than the original by more than {number(margin)}"


def warnings(result: Inspection) -> list[str]:
    """What a reader should know before applying it, a sentence each."""
    broken = result.nonfinite
    return [
        *([f"NaN or infinite values stand in {listed(broken)}: do not apply it."] if broken else []),
        *([] if len(result.patch) else ["It changes nothing."]),
        *([result.note] if result.note else []),
    ]


def metrics(result: Inspection) -> Grid:
    """What was measured of the patch, as its maker says."""
    measured = [[name, _figure(value)] for name, value in result.patch.metrics.items()]
    note = "As the file says; suture verify --patch measures it on data of your own."
    return Grid("What was measured of it", [Column("Metric"), *column("Value")], measured, note=note)


def groups(result: Inspection) -> Grid:
    """How much of each group is in the patch, and how far it moved."""
    return _moves(result.groups, LONGEST, "Group", "What it changes, by group", "group")


def tensors(result: Inspection) -> Grid:
    """The tensors that moved most."""
    return _moves(result.tensors, TENSORS, "Tensor", "What it changes, by tensor", "tensor")


def _moves(table: pd.DataFrame, most: int, name: str, title: str, thing: str) -> Grid:
    shown, measured = _most(table, most), bool(table["change"].notna().any())
    headings = ["tensors" if "tensors" in table else "form", "parameters", *(["changed", "moved"] if measured else [])]
    content: dict[str, Callable[[Any], str]] = {
        "tensors": lambda row: count(row["tensors"]),
        "form": lambda row: f"{row['dtype']} {row['shape']}".strip(),
        "parameters": lambda row: count(row["parameters"]),
        "changed": lambda row: percent(row["changed"] / row["parameters"]) if row["parameters"] else NOTHING,
        "moved": lambda row: _relative(row["change"]),
    }
    cells = [[str(key), *(content[h](row) for h in headings)] for key, row in shown.iterrows()]
    notes = [
        f"{len(shown)} of {several(len(table), thing)}, those that moved most." if len(shown) < len(table) else "",
        "Changed: numbers with other bits than before. Moved: ‖new − old‖ / ‖old‖." if measured else "",
    ]
    return Grid(title, [Column(name), *column(*headings)], cells, note=" ".join(filter(None, notes)))


def _most(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows that moved most, or are largest where that is not known, in their order."""
    if len(table) <= most:
        return table
    by = "change" if table["change"].notna().any() else "parameters"
    kept = set(table.reset_index()[by].astype(float).fillna(-1.0).nlargest(most).index)
    return table[[place in kept for place in range(len(table))]]


def _part(part: float, whole: int) -> str:
    return f"{count(part)} ({percent(part / whole)})" if whole else NOTHING


def _relative(change: float) -> str:
    return "from zero" if change == math.inf else percent(change, 2 if change < 0.1 else 1)


def _figure(value: float) -> str:
    return count(value) if value == round(value) and abs(value) < 1e15 else number(value, 4)


def table(result: Inspection) -> Table:
    """Facts, metrics and groups, for a terminal; hashes in full."""
    said = [f"{name}: {value}" for name, value in facts(result).rows]
    grids = [grid.rich() for grid in (metrics(result), groups(result)) if grid]
    shown = _most(result.groups, LONGEST)
    drawn = [
        Bar(str(name), change, {}, _relative(change))
        for name, change in zip(shown.index, floats(shown, "change"), strict=True)
    ]
    chart = [bars(drawn, "How far each group moved: ‖new − old‖ / ‖old‖")] if known(result.change) and drawn else []
    head = lines([*said, *warnings(result)])
    return stacked(_titled(head, result.file), *grids, *chart)


def _titled(head: Table, file: str) -> Table:
    head.title, head.title_justify, head.title_style = Text(plain(file, 80)), "left", "bold"
    return head


def html(result: Inspection) -> Markup:
    """Figure and tables, for a notebook."""
    return standalone(section(result))


def section(result: Inspection) -> Markup:
    """Facts, warnings, figure, tables, and how to apply it, for the page."""
    chart = image(lambda: figure(result), "Bars: how far each group moved.") if known(result.change) else None
    return render(
        "patch.html.j2",
        facts=facts(result),
        warnings=warnings(result),
        chart=chart if len(result.patch) else None,
        grids=[grid for grid in (metrics(result), groups(result), tensors(result)) if grid],
        file=shlex.quote(plain(result.file)),
        undo=UNDO,
        patch=result.patch,
    )


def page(result: Inspection) -> str:
    """The page of a patch as text."""
    held = f"{several(len(result.patch), 'tensor')}, {several(result.patch.size, 'number')}"
    return render("patch_page.html.j2", title=plain(result.file, 120), subtitle=held, body=section(result))


def markdown(result: Inspection) -> str:
    """The same tables for a pull request or a log."""
    said = [escaped(sentence) for sentence in warnings(result)]
    grids = [grid.markdown() for grid in (facts(result), metrics(result), groups(result)) if grid]
    return "\n".join([f"# {escaped(plain(result.file, 120))}", "", *(["  \n".join(said), ""] if said else []), *grids])


def to_json(result: Inspection) -> dict[str, Any]:
    """Everything as plain data; what is not known is null."""
    patch = result.patch
    return {
        "file": result.file,
        "kind": "undo" if patch.undo else "patch",
        "plan": patch.plan,
        "suture_version": patch.version,
        "base_sha256": patch.base,
        "result_sha256": patch.result or None,
        "tensors": len(patch),
        "parameters": patch.size,
        "changed": _plain(result.changed),
        "change": _plain(result.change),
        "metrics": dict(patch.metrics),
        "margin": patch.margin,
        "aliases": dict(patch.aliases),
        "nonfinite": result.nonfinite,
        "note": result.note,
        "by_group": _rows(result.groups),
        "by_tensor": _rows(result.tensors),
    }


def _rows(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        str(name): {str(key): _plain(value) for key, value in row.items()}
        for name, row in table.to_dict("index").items()
    }


def _plain(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None


def export(result: Inspection, form: str, out: Path) -> None:
    """Write a patch's page (``html``), tables (``md``) or data (``json``), atomically."""
    if form == "json":
        write_json(out, to_json(result))
    else:
        write_atomic(out, page(result) if form == "html" else markdown(result))
