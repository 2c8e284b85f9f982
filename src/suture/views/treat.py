"""Treat: what was changed, what was tried, what it cost (paper, Tables 10 and 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suture.patch import PATCH, UNDO
from suture.views import treat_tables
from suture.views.grid import lines, stacked
from suture.views.render import image, render, standalone
from suture.views.text import listed
from suture.views.treat_figures import comparable, curves, measured, tradeoff, trainings_of, unit_of
from suture.views.treat_tables import (
    IN_TERMINAL,
    ON_PAGE,
    answering,
    cost,
    findings,
    plan,
    tried,
    warnings,
    who_answers,
)
from suture.wording import several

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.treat import Treatment


def figure(result: Treatment, ax: Axes | None = None) -> Axes:
    """Training curves; see `suture.views.treat_figures.curves`."""
    return curves(result, ax)


def table(result: Treatment) -> Table:
    """What was tried, what it cost, and what was kept and why, for a terminal."""
    spent = cost(result)
    grids = [grid.rich() for grid in (tried(result, IN_TERMINAL, narrow=True), spent) if grid]
    kept, *way = findings(result)
    took = [] if spent or not result.cost.epochs else [treat_tables.took(result)]
    said = [*(f"Warning: {text}" for text in warnings(result)), *took, *way, kept, *answering(result)]
    return stacked(*grids, lines(said))


def html(result: Treatment) -> Markup:
    """Figures and tables, for a notebook."""
    return standalone(section(result))


def section(result: Treatment, weights: str | None = None) -> Markup:
    """Figures, tables, and how to apply and revert the patch, for the page.

    Args:
        weights: file name of the weights that the patch is for.
    """
    every, shown = tried(result), tried(result, ON_PAGE, narrow=True)
    return render(
        "treat.html.j2",
        result=result,
        where=listed(result.groups),
        warnings=warnings(result),
        findings=findings(result),
        answering=answering(result),
        route=None if result.patch.margin is None else who_answers(result.patch.margin),
        tradeoff=image(lambda: tradeoff(result), _alt_tradeoff(result)) if comparable(result) else None,
        curves=image(lambda: curves(result), _alt_curves(result)) if measured(result) else None,
        tried=shown,
        all=every if len(every.rows) > len(shown.rows) else None,
        cost=cost(result),
        took=treat_tables.took(result),
        plan=plan(result),
        weights=weights,
        patch=PATCH,
        undo=UNDO,
    )


def _alt_curves(result: Treatment) -> str:
    trainings = trainings_of(result)
    if len(trainings) > 1:
        return f"Training loss per epoch of {listed(list(trainings))}."
    drawn = " and ".join(name for _, name, _ in measured(result))
    return f"{drawn} over {several(len(result.history), unit_of(result.history))} of treatment."


def _alt_tradeoff(result: Treatment) -> str:
    return f"Fixed against broken of {several(len(result.tried) - 1, 'candidate')}; kept: {listed([result.kept])}."
