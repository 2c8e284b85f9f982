"""Scan: which epochs of a training oscillated, which crept, and whether its curves moved accordingly.

Paper, Figures 1 to 3, Tables 4 to 6, 14 and 15. Several runs side by side: `suture.views.scans`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.physics import Regime
from suture.views.grid import Column, Grid, column, lines, stacked
from suture.views.render import image, render, standalone
from suture.views.scan_tables import by_epoch, findings, milestones, motion, motion_in_two
from suture.views.style import BLUE, FAINT, GREEN, INK, MUTED, VERMILLION, axes, dress, epochs, floats, legend, sentence
from suture.views.text import count, number, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from rich.table import Table

    from suture.stages.scan import Scan

COLOURS = {Regime.underdamped: VERMILLION, Regime.critical: GREEN, Regime.overdamped: BLUE}
FORMULA = {"paper": "1 − 2√{}", "exact": "(1 − √{})²", "nesterov": "(1 − √{}) / (1 + √{})"}
STRIP = 0.09  # height of the strip of regimes, in shares of the axes
SHOWN = 12  # epochs of a table in a terminal
POINTS = 4000  # of a line; more cannot be seen


def figure(result: Scan, ax: Axes | None = None) -> Axes:
    """Momentum against the critical curve, its zones shaded, over a strip of regimes; the learning rate below.

    Worry when the strip is one colour to the end: the last epochs are where a run should settle. (Figures 1 and 3.)
    """
    log = result.epochs
    if not len(log):
        return sentence(ax or axes(height=3.0), "The log holds no epochs.")
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # noqa: PLC0415

    ax = ax or axes(height=3.9)
    height = ax.get_figure(root=True).get_figheight() * ax.get_position().height  # type: ignore[union-attr]
    below = make_axes_locatable(ax).append_axes("bottom", size="35%", pad=0.42, sharex=ax)
    momentum_panel(result, ax)
    thin = thinned(log)
    below.plot(epochs(thin), floats(thin, "lr"), color=INK, linewidth=1.8, **_markers(log))
    below.set_ylim(bottom=0)
    below.locator_params(axis="y", nbins=3)
    dress(below, title="Learning rate", x="epoch")
    dress(ax, title="Momentum against critical damping" if result.counts else "Momentum", x="", y="momentum")
    ax.tick_params(labelbottom=False)
    legend(ax, below=0.4 + 0.42 / ((height - 0.42) / 1.35))
    return ax


def momentum_panel(result: Scan, ax: Axes) -> None:
    """Momentum, critical momentum, shaded zones and the strip of regimes."""
    log = thinned(result.epochs)
    x, momentum, critical = epochs(log), floats(log, "momentum"), floats(log, "critical")
    low, high = _range(np.concatenate([momentum, critical]))
    bottom, top = low - 0.18 * (high - low), high + 0.06 * (high - low)
    if np.isfinite(critical).any():
        band = result.tolerance
        ax.fill_between(x, critical + band, max(top, 1.0), color=VERMILLION, alpha=0.08, linewidth=0)
        ax.fill_between(x, critical - band, critical + band, color=GREEN, alpha=0.14, linewidth=0)
        ax.fill_between(x, min(bottom, 0.0) - 1, critical - band, color=BLUE, alpha=0.08, linewidth=0)
        label = f"critical: {formula(result)}"
        ax.plot(x, critical, color=MUTED, linewidth=1.5, linestyle="--", label=label, **_markers(result.epochs))
    ax.plot(x, momentum, color=INK, linewidth=1.8, label="momentum μ", **_markers(result.epochs))
    strip(result, ax, 0, STRIP, counted=True)
    ax.set_ylim(bottom, top)
    _epoch_axis(ax, x)


def strip(result: Scan, ax: Axes, bottom: float, height: float, *, counted: bool = False) -> None:
    """Epochs coloured by regime, in shares of the axes' height; with a legend entry for each when `counted`."""
    for regime, stretches in _spans(result.epochs).items():
        total = several(result.counts.get(str(regime), 0), "epoch")
        ax.broken_barh(
            stretches, (bottom, height), transform=ax.get_xaxis_transform(), color=COLOURS[regime], linewidth=0,
            label=f"{regime}: {total}" if counted else None,
        )  # fmt: skip


def progress(result: Scan, ax: Axes | None = None) -> Axes:
    """Accuracy over epochs with the thresholds it reached (Figure 2), or the loss, over the strip of regimes.

    Worry when it falls back again and again where the strip is not underdamped.
    """
    ax = ax or axes(height=3.0)
    shown = next((c for c in ("accuracy", "loss") if np.isfinite(floats(result.epochs, c)).any()), None)
    if shown is None:
        return sentence(ax, "Neither accuracy nor loss was logged.")
    log = thinned(result.epochs)
    x, values = epochs(log), floats(log, shown)
    ax.plot(x, values, color=INK, linewidth=1.5, **_markers(result.epochs))
    low, high = _range(values)
    ax.set_ylim(low - 0.2 * (high - low), high + 0.08 * (high - low))
    if shown == "accuracy":
        ax.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
        for milestone in result.milestones:
            if milestone.epoch is not None and milestone.threshold >= low:
                ax.axhline(milestone.threshold, color=FAINT, linewidth=0.9, zorder=0)
                ax.plot(milestone.epoch, milestone.threshold, marker="|", color=VERMILLION, markersize=11, mew=1.8)
    strip(result, ax, 0, STRIP)
    _epoch_axis(ax, x)
    name = result.columns.get(shown, shown)
    title = f"{shown.capitalize()} per epoch" + (f" ({plain(name, 30)})" if name != shown else "")
    dress(ax, title=title.replace("$", r"\$"), x="epoch", y=shown)
    return ax


def thinned(log: pd.DataFrame) -> pd.DataFrame:
    """At most POINTS epochs, evenly spaced, for a line."""
    return log if len(log) <= POINTS else log.iloc[np.linspace(0, len(log) - 1, POINTS).astype(int)]


def formula(result: Scan) -> str:
    """The critical momentum of the scan, in symbols."""
    return f"μ_c = {FORMULA[result.form].replace('{}', 'α' if result.curvature == 1 else '(λα)')}"


def _markers(log: pd.DataFrame) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3} if len(log) <= 40 else {}


def _epoch_axis(ax: Axes, x: NDArray[np.float64]) -> None:
    ax.set_xlim(x.min() - 0.5, x.max() + 0.5)
    ax.locator_params(axis="x", integer=True)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.1, high + 0.1)


def _spans(log: pd.DataFrame) -> dict[Regime, list[tuple[float, float]]]:
    """Regime → stretches of consecutive epochs (start, width)."""
    if "regime" not in log:
        return {}
    x = epochs(log)
    names = [name if isinstance(name, str) else "" for name in log["regime"]]
    edges = np.concatenate([[x[0] - 0.5], (x[1:] + x[:-1]) / 2, [x[-1] + 0.5]])
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    spans: dict[Regime, list[tuple[float, float]]] = {}
    for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
        if names[start]:
            span = (float(edges[start]), float(edges[end] - edges[start]))
            spans.setdefault(Regime(names[start]), []).append(span)
    return {regime: spans[regime] for regime in Regime if regime in spans}


def grid(result: Scan) -> Grid:
    """Epochs per regime (Table 6)."""
    total = len(result.epochs)
    t = f"{result.tolerance:g}"
    where = {
        Regime.underdamped: f"μ > μ_c + {t}: oscillates",
        Regime.critical: f"|μ − μ_c| ≤ {t}: fastest decay",
        Regime.overdamped: f"μ < μ_c − {t}: creeps",
    }
    rows = [
        [str(regime), count(n), percent(n / total if total else None), where[regime]]
        for regime in Regime
        if result.counts and ((n := result.counts.get(str(regime), 0)) or total)
    ]
    columns = [Column("Regime"), *column("Epochs", "Share"), Column("Where")]
    note = f"Assumed: {result.assumed}." if result.assumed else ""
    return Grid(f"Damping regimes of {several(total, 'epoch')}", columns, rows, note=note)


def table(result: Scan) -> Table:
    """Regimes, epochs, milestones and oscillation, for a terminal."""
    grids = [grid(result), by_epoch(result, SHOWN, narrow=True), milestones(result), *motion_in_two(result)]
    shown = [g.rich() for g in grids if g]
    said = findings(result)
    return stacked(*shown, *([lines(said)] if said else []))


def html(result: Scan) -> Markup:
    """Figures and tables, for a notebook."""
    return standalone(section(result))


def section(result: Scan) -> Markup:
    """Figures and tables, for the page."""
    regimes = {str(r): result.counts.get(str(r), 0) for r in Regime}
    said = ", ".join(f"{name} {n}" for name, n in regimes.items())
    alt = f"Momentum and critical momentum over {len(result.epochs)} epochs; epochs by regime: {said}."
    logged = any(np.isfinite(floats(result.epochs, name)).any() for name in ("accuracy", "loss"))
    return render(
        "scan.html.j2",
        result=result,
        chart=image(lambda: figure(result), alt) if len(result.epochs) else None,
        curve=image(lambda: progress(result), "Accuracy or loss by epoch, with thresholds.") if logged else None,
        grid=grid(result),
        motion=motion(result),
        milestones=milestones(result),
        by_epoch=by_epoch(result),
        findings=findings(result),
        formula=formula(result),
        source=plain(result.source.replace("\\", "/").rpartition("/")[2]),
        first=_edge(result, 0),
        last=_edge(result, -1),
    )


def _edge(result: Scan, position: int) -> str:
    """The first or last epoch in words."""
    if not len(result.epochs):
        return ""
    row = result.epochs.iloc[position]
    if not result.counts or not isinstance(row["regime"], str):
        return (
            f"epoch {count(row['epoch'])} has momentum {number(row['momentum'])} at learning rate {number(row['lr'])}"
        )
    return f"epoch {count(row['epoch'])} is {row['regime']} (μ − μ_c = {number(row['delta'], 2)})"
