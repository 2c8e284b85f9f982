"""Treat as pictures: training curves, and what candidates fix against what they break."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.stats import upper_bound
from suture.treatments.choice import NONE
from suture.views.style import (
    BLUE,
    FAINT,
    GREEN,
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
    sentence,
)
from suture.views.text import count, percent
from suture.views.treat_tables import candidates
from suture.wording import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from suture.stages.treat import Treatment

CURVES = (
    ("loss", "training loss", VERMILLION), ("lr", "learning rate", BLUE), ("momentum", "momentum", GREEN),
)  # fmt: skip
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY, "#cc79a7")  # of the best plans; all others are grey
MARKERS = ("o", "s", "^", "D", "v", "P")
NAME = 22  # characters of a plan's name beside its line
MOST = 8  # lines that are all named; of more, those with a colour
KEPT = ", kept"
FAR = 2.5  # times what was broken at most: beyond it the bound is told, not drawn
STEP = re.compile(r" (?:x|by) [+-]?[0-9.]+(?:e-?[0-9]+)?(?=$| x | by |,)")  # a weight or a margin in a candidate's name


def curves(result: Treatment, ax: Axes | None = None) -> Axes:
    """Training loss over epochs, a line for each training; of a single one also learning rate and momentum.

    Worry when the loss still falls steeply at the end (more epochs would do more) or rises.
    """
    drawn = measured(result)
    if not drawn:
        return sentence(ax or axes(), "Nothing was trained.")
    trainings = trainings_of(result)
    if len(trainings) > 1 and drawn[0][0] == "loss":
        return _together(trainings, _styles(result), ax or axes(2.9, 4.3))
    return _apart(result.history, drawn, ax or axes(height=1.4 + 0.9 * len(drawn)))


def measured(result: Treatment) -> list[tuple[str, str, str]]:
    """Columns of the history that hold numbers."""
    return [c for c in CURVES if np.isfinite(floats(result.history, c[0])).any()]


def trainings_of(result: Treatment) -> dict[str, pd.DataFrame]:
    """The history by training: plan by plan, and cycle by cycle where the epochs begin anew."""
    history = result.history
    plans = history.groupby("plan", sort=False) if "plan" in history else [(result.plan.name, history)]
    found = {}
    for name, rows in plans:
        anew = np.cumsum(np.diff(floats(rows, "epoch"), prepend=0) < 0) + 1
        for cycle in np.unique(anew):
            found[str(name) if cycle == 1 else f"{name}, cycle {cycle}"] = rows[anew == cycle]
    return found


def unit_of(history: pd.DataFrame) -> str:
    """What a row is of: an epoch, or a step of a solver or a search."""
    return "step" if np.isfinite(floats(history, "step")).any() else "epoch"


def _apart(history: pd.DataFrame, drawn: list[tuple[str, str, str]], ax: Axes) -> Axes:
    """One training: a panel for each curve, below each other."""
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # noqa: PLC0415

    divider = make_axes_locatable(ax)
    panels = [ax, *(divider.append_axes("bottom", size="55%", pad=0.42, sharex=ax) for _ in drawn[1:])]
    x, unit = epochs(history), unit_of(history)
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(x) <= 40 else {}
    for panel, (key, name, colour) in zip(panels, drawn, strict=True):
        panel.plot(x, floats(history, key), color=colour, linewidth=1.8, **style)
        dress(panel, title=f"{name.capitalize()} per {unit}", x=unit if panel is panels[-1] else "")
        panel.margins(y=0.18)
        panel.locator_params(axis="y", nbins=4)
        if panel is not panels[-1]:
            panel.tick_params(labelbottom=False)
    ax.locator_params(axis="x", integer=True)
    return ax


def _together(trainings: dict[str, pd.DataFrame], styles: dict[str, tuple[str, str]], ax: Axes) -> Axes:
    """Several trainings: a line each, with its name at its end."""
    ends = list[tuple[float, float, str]]()
    for name, rows in trainings.items():
        if unit_of(rows) != "epoch":  # of a solver or a search: no passes over the examples
            continue
        x, y = epochs(rows), floats(rows, "loss")
        colour, marker = styles.get(name, (MUTED, "."))
        ax.plot(x, y, color=colour, linewidth=1.8, marker=marker, markersize=4)
        known = np.flatnonzero(np.isfinite(y))
        if len(known):
            ends.append((float(x[known[-1]]), float(y[known[-1]]), name))
    dress(ax, title="Training loss per epoch", x="epoch", y="loss")
    ax.locator_params(axis="x", integer=True)
    ax.set_ylim(bottom=min(ax.get_ylim()[0], 0.0))
    named = ends if len(ends) <= MOST else [end for end in ends if end[2] in styles]
    longest = max((x for x, *_ in ends), default=0.0)
    _name_ends(ax, [end for end in named if end[0] == longest])
    _name_ends(ax, [end for end in named if end[0] < longest], given_up=True)
    return ax


def _name_ends(ax: Axes, ends: list[tuple[float, float, str]], *, given_up: bool = False) -> None:
    """Names beside the points (x, y), moved apart where they would lie on each other.

    Args:
        given_up: below the points: right of them the others go on.
    """
    low, high = ax.get_ylim()
    gap = 0.2 * (high - low) / ax.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
    sign, aside, toward = (-1, (0, -11), "center") if given_up else (1, (7, 0), "left")
    last = -np.inf
    for x, y, name in sorted(ends, key=lambda end: sign * end[1]):
        last = max(sign * y, last + gap)
        place = (11, 0) if name.endswith(KEPT) else aside  # clear of the ring
        ax.annotate(label(plain(name, NAME + len(KEPT))), (x, sign * last), place, ha=toward, va="center",
                    textcoords="offset points", fontsize="small", color=INK, annotation_clip=False)  # fmt: skip


def comparable(result: Treatment) -> bool:
    """Whether there are several candidates to compare."""
    return len(result.tried) > 2 and "weight" in result.tried


def tradeoff(result: Treatment, ax: Axes | None = None) -> Axes:
    """Fixed against broken, a point per candidate, the weights of one plan joined, and the bound.

    Up and to the left is better. Points of different plans that would coincide are drawn a little apart. Worry when the
    kept one has many above it that are no further to the right: then the bound, not the repair, decided.
    """
    if not comparable(result):
        return sentence(ax or axes(), "There was one candidate at most, so there is nothing to compare.")
    ax = ax or axes(3.3, 4.1)
    styles, families = _styles(result), _families(result)
    most, highest = (max(int(result.tried[name].max()), 1) for name in ("broken", "fixed"))
    ends = list[tuple[float, float, str]]()
    for i, (name, rows) in enumerate(families.items()):
        aside = (i - (len(families) - 1) / 2) * 0.012 * most
        x, y = [row["broken"] + aside for row in rows], [row["fixed"] for row in rows]
        colour, marker = styles.get(name, (MUTED, "."))
        whole = ([0, *x], [0, *y]) if len(rows) > 1 and ", cycle " not in name else (x, y)
        ax.plot(*whole, color=colour, linewidth=1.3, zorder=2)
        ax.plot(x, y, marker, color=colour, markersize=6, zorder=3)
        at_end = rows[-1]["candidate"] == result.kept
        if name in styles:
            ends.append((float(x[-1]), float(y[-1]), f"{plain(name, NAME)}{KEPT}" if at_end else name))
        for place, row in zip(zip(x, y, strict=True), rows, strict=True):
            if row["candidate"] == result.kept:
                _ring(ax, place, "" if at_end else "kept")
    if result.kept == NONE:
        _ring(ax, (0, 0), "kept: none")
    ax.plot(0, 0, "o", color=INK, markersize=4, zorder=4)
    beyond = _draw_bound(ax, result, most)
    dress(ax, title="Fixed against broken, by candidate", x=f"broken{beyond}", y="fixed")
    ax.locator_params(integer=True, nbins=6)
    ax.set_ylim(-0.06 * highest, 1.2 * highest)
    _name_ends(ax, ends)
    return ax


def _ring(ax: Axes, place: tuple[float, float], name: str) -> None:
    ax.plot(*place, "o", markersize=13, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=2, zorder=5)
    ax.annotate(name, place, (9, 8), textcoords="offset points", fontsize="small", fontweight="bold",
                color=INK, annotation_clip=False)  # fmt: skip


def _draw_bound(ax: Axes, result: Treatment, most: int) -> str:
    """Shade where more may break than was promised; words for the axis where that lies far out."""
    promised, allowed = result.plan.choose.max_regression, most_allowed(result)
    if promised is None or allowed is None:
        return ""
    if allowed > FAR * most:
        return f" (the bound of {percent(promised, 0)} allows {count(allowed)})"
    right = max(ax.get_xlim()[1], allowed + 1.0)
    ax.axvspan(allowed + 0.5, right, color=FAINT, alpha=0.55, linewidth=0, zorder=0)
    ax.axvline(allowed + 0.5, color=MUTED, linewidth=1, linestyle="--", zorder=1)
    ax.set_xlim(right=right)
    ax.annotate(f"over the bound of {percent(promised, 0)} →", (allowed + 0.5, 0.03), (4, 0), fontsize="small",
                xycoords=("data", "axes fraction"), textcoords="offset points", color=INK)  # fmt: skip
    return ""


def most_allowed(result: Treatment) -> int | None:
    """How many may break under the promised bound; −1 for none, None where no bound is known.

    How many examples were right before follows from the bound of ``none``, 1 − 0.05^(1/n).
    """
    promised = result.plan.choose.max_regression
    nothing = floats(result.tried[result.tried["candidate"] == NONE], "bound")
    if promised is None or not len(nothing) or not 0 < nothing[0] < 1:
        return None
    right = round(float(np.log(0.05) / np.log1p(-nothing[0])))
    allowed = -1
    while allowed < right and upper_bound(allowed + 1, right) <= promised:
        allowed += 1
    return allowed


def _families(result: Treatment) -> dict[str, list[dict[str, Any]]]:
    """Candidates of one training, from the original to all the way; the family with the best score first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in candidates(result):
        if row["candidate"] != NONE:
            found.setdefault(STEP.sub("", str(row["candidate"])), []).append(row)
    return {name: sorted(rows, key=_reach) for name, rows in found.items()}


def _reach(row: dict[str, Any]) -> tuple[float, float]:
    """Weight, then how seldom the original network answers."""
    margin = re.search(r" by ([+-]?[0-9.]+)", str(row["candidate"]))
    return float(row["weight"]), -float(margin[1]) if margin else 0.0


def _styles(result: Treatment) -> dict[str, tuple[str, str]]:
    """Colour and marker of the plans with the best candidates, the same in both pictures."""
    return dict(zip(_families(result), zip(COLOURS, MARKERS, strict=True), strict=False))
