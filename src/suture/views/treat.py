"""Treat: what was changed, what was tried, what it cost (paper, Tables 10 and 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.stages.treat import PATCH, UNDO
from suture.views.grid import Column, Grid, column, stacked
from suture.views.render import image, render, standalone
from suture.views.style import BLUE, GREEN, VERMILLION, axes, dress, epochs, floats, sentence
from suture.views.text import NOTHING, count, flops, listed, number, percent, seconds, several, signed

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.treat import Treatment

CURVES = (
    ("loss", "training loss", VERMILLION), ("lr", "learning rate", BLUE), ("momentum", "momentum", GREEN),
)  # fmt: skip


def figure(result: Treatment, ax: Axes | None = None) -> Axes:
    """Training loss over epochs, learning rate and momentum below it on the same epochs.

    Worry when the loss still falls steeply at the end (more epochs would do more) or rises.
    """
    curves = _curves(result)
    if not curves:
        return sentence(ax or axes(), "Nothing was trained.")
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # noqa: PLC0415

    ax = ax or axes(height=1.4 + 0.9 * len(curves))
    divider = make_axes_locatable(ax)
    panels = [ax, *(divider.append_axes("bottom", size="55%", pad=0.42, sharex=ax) for _ in curves[1:])]
    x = epochs(result.history)
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(x) <= 40 else {}
    for panel, (key, name, colour) in zip(panels, curves, strict=True):
        panel.plot(x, floats(result.history, key), color=colour, linewidth=1.8, **style)
        dress(panel, title=f"{name.capitalize()} per epoch", x="epoch" if panel is panels[-1] else "")
        panel.margins(y=0.18)
        panel.locator_params(axis="y", nbins=4)
        if panel is not panels[-1]:
            panel.tick_params(labelbottom=False)
    ax.locator_params(axis="x", integer=True)
    return ax


def _curves(result: Treatment) -> list[tuple[str, str, str]]:
    """Columns of the history that hold numbers."""
    return [c for c in CURVES if np.isfinite(floats(result.history, c[0])).any()]


def cost(result: Treatment) -> Grid:
    """Measured cost against full fine-tuning for as many epochs."""
    c = result.cost
    if not c.epochs:
        return Grid("Cost", [], [])
    rows = [
        ["parameters trained", count(c.parameters), count(c.all_parameters), _share(c.parameters, c.all_parameters)],
        ["compute, measured", flops(c.flops), flops(c.full_flops), percent(c.share) if c.full_flops else NOTHING],
        ["the paper's formula", several(c.groups, "group"), several(c.all_groups, "group"), percent(c.paper_share)],
    ]
    note = (
        f"{several(c.epochs, 'epoch')} in {seconds(c.seconds)}. Full fine-tuning: the same steps with every parameter "
        "trained. The paper's formula counts epochs × groups, as if groups were equally large and forward passes free."
    )
    columns = [Column("Cost"), *column("this repair", "full fine-tuning", "share")]
    return Grid("What it cost", columns, rows, note=note)


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else NOTHING


def tried(result: Treatment) -> Grid:
    """Candidates and what each did on the select split."""
    rows = [
        [str(row["candidate"]), count(row["fixed"]), count(row["broken"]), signed(row["net"]),
         "kept" if row["candidate"] == result.kept else ""]
        for row in result.tried.to_dict("records")
    ]  # fmt: skip
    marked = frozenset(i for i, row in enumerate(rows) if row[-1])
    columns = [Column("Candidate"), *column("Fixed", "Broken", "Net"), Column("")]
    return Grid("What was tried, on the select split", columns, rows, marked, note=f"{result.note}.")


def table(result: Treatment) -> Table:
    """What was tried and what it cost, for a terminal."""
    return stacked(*(grid.rich() for grid in (tried(result), cost(result)) if grid))


def html(result: Treatment) -> Markup:
    """Figure and tables, for a notebook."""
    return standalone(section(result))


def section(result: Treatment, weights: str | None = None) -> Markup:
    """Figure, tables, and how to apply and revert the patch, for the page.

    Args:
        weights: file name of the weights that the patch is for.
    """
    curves = _curves(result)
    alt = f"{' and '.join(name for _, name, _ in curves)} over {len(result.history)} epochs of treatment."
    return render(
        "treat.html.j2",
        result=result,
        where=listed(result.groups),
        chart=image(lambda: figure(result), alt) if curves else None,
        tried=tried(result),
        cost=cost(result),
        plan=plan(result),
        weights=weights or "WEIGHTS",
        patch=PATCH,
        undo=UNDO,
    )


def plan(result: Treatment) -> Grid:
    """The plan, field by field."""
    rows = [[name, value] for name, value in _flat(result.plan.model_dump(mode="json"))]
    return Grid("The plan", [Column("Field"), Column("Value")], rows)


def _flat(thing: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(thing, dict):
        return [row for key, value in thing.items() for row in _flat(value, f"{name}.{key}" if name else str(key))]
    if isinstance(thing, float):
        return [(name, number(thing))]
    return [(name, ", ".join(map(str, thing)) if isinstance(thing, list) else str(thing))]
