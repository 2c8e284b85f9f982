"""Several scans side by side: the paper's Figures 1 to 3 and Tables 4 to 6 and 14, a row or a line per run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.physics import Regime
from suture.views import scan as single
from suture.views.grid import Column, Grid, column, lines, stacked
from suture.views.render import image, render
from suture.views.scan_tables import as_sentence, findings
from suture.views.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    ORANGE,
    SKY,
    VERMILLION,
    axes,
    dress,
    epochs,
    floats,
    label,
    legend,
    sentence,
)
from suture.views.text import NOTHING, count, percent
from suture.wording import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.scan import Scan

PURPLE = "#cc79a7"  # the palette's last: blue, green and vermillion are the regimes'
LINES = [(c, s) for s in ("-", "--", ":") for c in (INK, ORANGE, SKY, PURPLE)]  # colour and style per run
NAME = 28  # characters of a run's name


def momentum(scans: Mapping[str, Scan], ax: Axes | None = None) -> Axes:
    """Momentum of every run and the critical curve of the first one with regimes (Figure 1, right)."""
    ax = ax or axes(height=3.2)
    for (name, result), style in zip(scans.items(), _styles(scans), strict=True):
        log = single.thinned(result.epochs)
        ax.plot(epochs(log), floats(log, "momentum"), linewidth=1.6, label=label(name, NAME), **style)
    reference = next((s for s in scans.values() if s.counts), None)
    if reference is not None:
        log, low = single.thinned(reference.epochs), ax.get_ylim()[0]
        x, critical, band = epochs(log), floats(log, "critical"), reference.tolerance
        low = min(low, float(np.nanmin(critical)))
        ax.plot(x, critical, color=MUTED, linestyle="--", linewidth=1.4, label="critical")
        ax.fill_between(x, critical + band, 1.02, color=VERMILLION, alpha=0.07, linewidth=0)
        ax.fill_between(x, low - 1, critical - band, color=BLUE, alpha=0.07, linewidth=0)
        ax.set_ylim(low - 0.04, 1.02)
    dress(ax, title="Momentum; above the critical curve runs oscillate", x="epoch", y="momentum")
    legend(ax, columns=2)
    return ax


def accuracy(scans: Mapping[str, Scan], ax: Axes | None = None) -> Axes:
    """Accuracy of every run that logged it, and the thresholds (Figure 2)."""
    ax = ax or axes(height=3.2)
    shown = [
        (name, result, style)
        for (name, result), style in zip(scans.items(), _styles(scans), strict=True)
        if result.best
    ]
    if not shown:
        return sentence(ax, "No run logged its accuracy.")
    for name, result, style in shown:
        log = single.thinned(result.epochs)
        ax.plot(epochs(log), floats(log, "accuracy"), linewidth=1.4, label=label(name, NAME), **style)
    low = ax.get_ylim()[0]
    for milestone in shown[0][1].milestones:
        if milestone.threshold > low:
            ax.axhline(milestone.threshold, color=FAINT, linewidth=0.9, zorder=0)
    ax.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
    dress(ax, title="Accuracy per epoch", x="epoch", y="accuracy")
    legend(ax, columns=2)
    return ax


def strips(scans: Mapping[str, Scan], ax: Axes | None = None) -> Axes:
    """A strip of regimes per run (Figure 3)."""
    ax = ax or axes(height=0.8 + 0.34 * max(len(scans), 2))
    height = 1 / len(scans)
    for place, result in enumerate(scans.values()):
        single.strip(result, ax, 1 - (place + 0.85) * height, 0.7 * height)
    last = max((float(epochs(result.epochs).max()) for result in scans.values() if len(result.epochs)), default=1.0)
    ax.set_xlim(0.5, last + 0.5)
    ax.set_ylim(0, 1)
    names = [label(name, NAME) for name in scans]
    ax.set_yticks([1 - (place + 0.5) * height for place in range(len(scans))], names)
    ax.tick_params(axis="y", length=0)
    for regime, colour in single.COLOURS.items():
        ax.plot([], [], color=colour, linewidth=6, label=str(regime))
    dress(ax, title="Damping regimes", x="epoch")
    legend(ax)
    return ax


def _styles(scans: Mapping[str, Scan]) -> list[dict[str, Any]]:
    pairs = [LINES[i % len(LINES)] for i in range(len(scans))]
    return [{"color": colour, "linestyle": style} for colour, style in pairs]


def regimes(scans: Mapping[str, Scan]) -> Grid:
    """Epochs by regime (Table 6)."""
    rows = []
    for name, result in scans.items():
        total = len(result.epochs)
        cells = [
            f"{count(n)} ({percent(n / total)})" if result.counts and total else NOTHING
            for n in (result.counts.get(str(regime), 0) for regime in Regime)
        ]
        rows.append([plain(name, NAME), count(total), *cells])
    heads = [Column("Run"), *column("Epochs", *(str(regime).capitalize() for regime in Regime))]
    return Grid("Damping regimes", heads, rows)


def milestones(scans: Mapping[str, Scan]) -> Grid:
    """Best accuracy and epochs to each threshold (Tables 3, 4 and 14)."""
    thresholds = sorted({m.threshold for result in scans.values() for m in result.milestones})
    rows = []
    for name, result in scans.items():
        reached = {m.threshold: m.epoch for m in result.milestones}
        best = percent(result.best[1], 2) if result.best else NOTHING
        rows.append([plain(name, NAME), best, *(count(reached.get(t)) for t in thresholds)])
    heads = [Column("Run"), *column("Best", *(percent(t, 1).replace(".0", "") for t in thresholds))]
    note = f"The first epoch at or above the threshold; {NOTHING}: not reached."
    return Grid("Epochs to an accuracy", heads, rows if thresholds else [], note=note)


def early(scans: Mapping[str, Scan]) -> Grid:
    """Accuracy of early epochs (Table 5)."""
    asked = sorted({epoch for result in scans.values() for epoch, value in result.early.items() if value is not None})
    rows = [[plain(n, NAME), *(percent(s.early.get(e), 2) for e in asked)] for n, s in scans.items()]
    heads = [Column("Run"), *column(*(f"Epoch {count(e)}" for e in asked))]
    return Grid("Early accuracy", heads, rows if asked else [])


def table(scans: Mapping[str, Scan]) -> Table:
    """Regimes, milestones, early accuracy, and what is to be said of each run, for a terminal."""
    shown = [grid.rich() for grid in (regimes(scans), milestones(scans), early(scans)) if grid]
    said = notes(scans)
    return stacked(*shown, *([lines(said)] if said else []))


def notes(scans: Mapping[str, Scan]) -> list[str]:
    """Findings and assumptions, each with the run it belongs to."""
    said = []
    for name, result in scans.items():
        assumed = [f"Assumed: {result.assumed}."] if result.assumed and result.counts else []
        found = findings(result) if result.stretches or not result.counts else map(as_sentence, result.notes)
        said += [f"{plain(name, NAME)}: {line}" for line in [*assumed, *found]]
    return said


def page(scans: Mapping[str, Scan]) -> Markup:
    """One run as its section of a report, several side by side and each below: a file of its own."""
    several = len(scans) > 1
    charts = [
        image(lambda: momentum(scans), "Momentum of every run against the critical curve."),
        image(lambda: strips(scans), "Epochs of every run, coloured by regime."),
    ]
    if any(result.best for result in scans.values()):
        charts.append(image(lambda: accuracy(scans), "Accuracy of every run by epoch."))
    grids = [grid for grid in (regimes(scans), milestones(scans), early(scans)) if grid]
    return render(
        "scans.html.j2",
        charts=charts if several else [],
        grids=grids if several else [],
        sections=[(plain(name, 80), single.section(result)) for name, result in scans.items()],
    )
