"""Scan: which epochs of a training oscillated, which crept (paper, Figures 1 and 3, Tables 6 and 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.physics import Regime
from suture.stages.scan import TOLERANCE, Scan
from suture.views.grid import Column, Grid, column
from suture.views.render import image, render, standalone
from suture.views.style import BLUE, GREEN, INK, MUTED, VERMILLION, axes, dress, epochs, floats, legend, sentence
from suture.views.text import count, number, percent, plain, several

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from rich.table import Table

COLOURS = {Regime.underdamped: VERMILLION, Regime.critical: GREEN, Regime.overdamped: BLUE}
MEANING = {
    Regime.underdamped: f"μ > μ_c + {TOLERANCE}: oscillates",
    Regime.critical: f"|μ − μ_c| ≤ {TOLERANCE}: fastest decay",
    Regime.overdamped: f"μ < μ_c − {TOLERANCE}: creeps",
}
STRIP = 0.09  # height of the strip of regimes, in shares of the axes


def figure(result: Scan, ax: Axes | None = None) -> Axes:
    """The run's momentum against the critical curve, over a strip of epochs coloured by regime.

    Worry when the strip is one colour to the end: the last epochs are where a run should settle.
    """
    ax = ax or axes(height=3.0)
    log = result.epochs
    if not len(log):
        return sentence(ax, "The log holds no epochs.")
    x = epochs(log)
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(log) <= 40 else {}
    ax.plot(x, floats(log, "momentum"), color=INK, linewidth=1.8, label="momentum μ", **style)
    critical = "critical: μ_c = 1 − 2√α"
    ax.plot(x, floats(log, "critical"), color=MUTED, linewidth=1.5, linestyle="--", label=critical, **style)
    for regime, spans in _spans(log).items():
        total = several(result.counts.get(str(regime), 0), "epoch")
        ax.broken_barh(
            spans, (0, STRIP), transform=ax.get_xaxis_transform(), color=COLOURS[regime],
            linewidth=0, label=f"{regime}: {total}",
        )  # fmt: skip
    low, high = _range(np.concatenate([floats(log, "momentum"), floats(log, "critical")]))
    ax.set_ylim(low - 0.18 * (high - low), high + 0.06 * (high - low))
    ax.set_xlim(x.min() - 0.5, x.max() + 0.5)
    ax.locator_params(axis="x", integer=True)
    dress(ax, title="Momentum against critical damping", x="epoch", y="momentum")
    legend(ax)
    return ax


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.1, high + 0.1)


def _spans(log: pd.DataFrame) -> dict[Regime, list[tuple[float, float]]]:
    """Regime → stretches of consecutive epochs (start, width)."""
    x, names = epochs(log), log["regime"].to_numpy(str)
    edges = np.concatenate([[x[0] - 0.5], (x[1:] + x[:-1]) / 2, [x[-1] + 0.5]])
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    ends = np.concatenate([starts[1:], [len(names)]])
    spans: dict[Regime, list[tuple[float, float]]] = {}
    for start, end in zip(starts, ends, strict=True):
        span = (float(edges[start]), float(edges[end] - edges[start]))
        spans.setdefault(Regime(names[start]), []).append(span)
    return {regime: spans[regime] for regime in Regime if regime in spans}


def grid(result: Scan) -> Grid:
    """Epochs per regime."""
    total = len(result.epochs)
    rows = [
        [str(regime), count(n), percent(n / total if total else None), MEANING[regime]]
        for regime in Regime
        if (n := result.counts.get(str(regime), 0)) or total
    ]
    columns = [Column("Regime"), *column("Epochs", "Share"), Column("Where")]
    note = f"Assumed: {result.assumed}." if result.assumed else ""
    return Grid(f"Damping regimes of {several(total, 'epoch')}", columns, rows, note=note)


def table(result: Scan) -> Table:
    """Epochs per regime, for a terminal."""
    return grid(result).rich()


def html(result: Scan) -> Markup:
    """Figure and table, for a notebook."""
    return standalone(section(result))


def section(result: Scan) -> Markup:
    """Figure and table, for the page."""
    regimes = {str(r): result.counts.get(str(r), 0) for r in Regime}
    said = ", ".join(f"{name} {n}" for name, n in regimes.items())
    alt = f"Momentum and critical momentum over {len(result.epochs)} epochs; epochs by regime: {said}."
    return render(
        "scan.html.j2",
        chart=image(lambda: figure(result), alt) if len(result.epochs) else None,
        grid=grid(result),
        source=plain(result.source.replace("\\", "/").rpartition("/")[2]),
        first=_edge(result, 0),
        last=_edge(result, -1),
    )


def _edge(result: Scan, position: int) -> str:
    """The first or last epoch in words."""
    if not len(result.epochs):
        return ""
    row = result.epochs.iloc[position]
    return f"epoch {count(row['epoch'])} is {row['regime']} (μ − μ_c = {number(row['delta'], 2)})"
