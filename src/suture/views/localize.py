"""Localize: scores of every group with intervals, beside what they are without errors (paper, Table 8), and gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suture.views.bars import Bar, bars
from suture.views.grid import lines, stacked
from suture.views.localize_tables import PAID, beside, gains, grid, on_its_side, others, unit_of, warnings, with_unit
from suture.views.profiles import (
    STANDS_OUT,
    are_shares,
    drawable,
    gains_of,
    highest,
    profiles_of,
)
from suture.views.render import image, render, standalone
from suture.views.style import (
    BLUE,
    GREEN,
    INK,
    MOST,
    MUTED,
    VERMILLION,
    WIDTH,
    axes,
    dress,
    floats,
    label,
    legend,
    name_rows,
    rows,
    sentence,
)
from suture.views.text import NOTHING, count, known, listed, number, percent
from suture.wording import plain, several

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from rich.table import Table

    from suture.stages.localize import Localization

BARS = 12  # groups as bars in a terminal


def figure(result: Localization, ax: Axes | None = None) -> Axes:
    """Each group's score, or its share with its interval: on errors, on correct examples, at random initialisation.

    A score with a unit of its own is drawn beside the line above which a group stands out: worry about what reaches
    beyond it. Others are drawn as shares, because errors have larger losses and so larger gradients everywhere; what
    matters is where they differ. Worry when a group's bar and interval reach far beyond both of its marks: this is
    where errors are unlike the rest. Bars that end at their marks show the architecture, not the errors. Beside it,
    where it was measured, what treating the group gains: worry about nothing whose interval holds zero.
    """
    if not drawable(result):
        return sentence(ax or rows(2), "There are no scores to draw.")
    shares = are_shares(result)
    profiles = profiles_of(result) * (100 if shares else 1)
    shown = highest(profiles["errors"], MOST)
    gains = gains_of(result).loc[shown]
    paid = bool(gains["gain"].notna().any())
    ax = ax or axes(0.9 + 0.32 * max(len(shown), 2), 1.35 * WIDTH if paid else WIDTH)
    places = np.arange(len(shown))
    flagged = np.array([group in result.flagged for group in shown])
    values = floats(profiles.loc[shown], "errors")
    line = STANDS_OUT.get(result.first)
    names = ("errors, flagged group", "errors") if line is None else ("flagged group", "other group")
    for hit, colour, name in ((flagged, VERMILLION, names[0]), (~flagged, BLUE, names[1])):
        if hit.any():
            ax.barh(places[hit], values[hit], height=0.62, color=colour, label=name)
    _mark_interval(ax, profiles.loc[shown], MUTED, "95 % interval")
    _mark_null(ax, floats(profiles.loc[shown], "correct"), "|", "correct examples", markersize=14, markeredgewidth=2.2)
    _mark_null(ax, floats(profiles.loc[shown], "random"), "o", "random weights", markersize=5, markerfacecolor="white")
    if line is not None:
        ax.axvline(line, color=INK, linewidth=1.2, linestyle="--", label=unit_of(result.first))
    for place in places[~np.isfinite(values)]:
        ax.annotate(NOTHING, (0, place), (3, 0), textcoords="offset points", va="center", color=MUTED)
    name_rows(ax, [f"{plain(group, 28)} (top)" if group == result.top else group for group in shown])
    more = f", {len(shown)} of {len(profiles)} groups" if len(shown) < len(profiles) else ""
    name = label(result.first)
    title = f"Where the {name} of errors lies{more}" if line is None else f"Which group stands out{more}"
    dress(ax, title=title, x=f"share of {name} (%)" if shares else with_unit(name))
    legend(ax, columns=2)
    if paid:
        _draw_gains(ax, gains)
    return ax


def _draw_gains(ax: Axes, gains: pd.DataFrame) -> None:
    """The panel beside the bars: what treating each group gains."""
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # noqa: PLC0415

    panel = make_axes_locatable(ax).append_axes("right", size="45%", pad=0.25, sharey=ax)
    panel.axvline(0, color=MUTED, linewidth=0.8)
    _mark_interval(panel, gains, GREEN)
    panel.plot(floats(gains, "gain"), np.arange(len(gains)), "o", color=GREEN, markersize=5)
    dress(panel, title="What treating it gains", x="held-out gain, log(1 + loss)")
    panel.tick_params(axis="y", length=0, labelleft=False)
    panel.locator_params(axis="x", nbins=4)


def _mark_interval(ax: Axes, table: pd.DataFrame, colour: str, name: str = "") -> None:
    """Horizontal lines from low to high, where both are known."""
    low, high = floats(table, "low"), floats(table, "high")
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        places = np.arange(len(table))[known]
        ax.hlines(places, low[known], high[known], color=colour, linewidth=1.6, label=name or "_", zorder=3)


def _mark_null(ax: Axes, values: Any, marker: str, name: str, **style: Any) -> None:
    if np.isfinite(values).any():
        ax.plot(values, np.arange(len(values)), marker, color=INK, label=name, **style)


def table(result: Localization) -> Table:
    """Scores beside their nulls, the shares as bars, and what they say, for a terminal."""
    drawn = [_bars(result)] if drawable(result) else []
    main = grid(result, narrow=True)
    apart = [] if any(name == PAID for name, _ in main.columns) else [gains(result)]
    more = [grid.rich() for grid in (beside(result), *apart, others(result, narrow=True)) if grid]
    said = lines([*findings(result), *small_print(result)])
    first = [lines([f"Warning: {text}" for text in warnings(result)])] if warnings(result) else []
    return stacked(*first, main.rich(), *drawn, *more, said)


def _bars(result: Localization) -> Table:
    profiles, shares, line = profiles_of(result), are_shares(result), STANDS_OUT.get(result.first)
    shown = highest(profiles["errors"], BARS)
    drawn = []
    for group in shown:
        ours, correct, random = np.asarray(profiles.loc[group, ["errors", "correct", "random"]], float).tolist()
        behind = percent(ours) if shares else on_its_side(ours, 3, line)
        marks = {"○": random, "┃": correct} if line is None else {"┃": line if known(ours) else float("nan")}
        drawn.append(Bar(group, ours, marks, behind, bold=group == result.top))
    more = f"; {len(shown)} of {len(profiles)} groups" if len(shown) < len(profiles) else ""
    name = f"share of {result.first}" if shares else result.first
    meanings = {"┃": "on correct examples", "○": "at random weights"} if line is None else {"┃": unit_of(result.first)}
    there = {sign for bar in drawn for sign, place in bar.marks.items() if known(place)}
    said = ", ".join(f"{sign} {meaning}" for sign, meaning in meanings.items() if sign in there)
    return bars(drawn, f"{name}{'; ' if said else ''}{said}{more}")


def html(result: Localization) -> Markup:
    """Figure and table, for a notebook."""
    return standalone(section(result))


def section(result: Localization) -> Markup:
    """Figure, tables and what may be said, for the page."""
    return render(
        "localize.html.j2",
        result=result,
        warnings=warnings(result),
        findings=findings(result),
        small_print=small_print(result),
        chart=image(lambda: figure(result), _alt(result)) if drawable(result) else None,
        grid=grid(result),
        beside=beside(result),
        others=others(result),
    )


def _alt(result: Localization) -> str:
    """The figure in words: no nulls are named that it does not have."""
    name = f"Share of {result.first}" if are_shares(result) else with_unit(result.first)
    profiles = profiles_of(result)
    marks = {"correct": "on correct examples", "random": "at random weights"}
    nulls = [where for key, where in marks.items() if profiles[key].notna().any()]
    drawn = f" {listed(['on errors', *nulls])}" if nulls else ""
    gained = "; held-out gain per group" if gains_of(result)["gain"].notna().any() else ""
    return f"{name} per group{drawn}{gained}."


def findings(result: Localization) -> list[str]:
    """What the scores say, a sentence each."""
    found = [_accuracy(result), winner(result)]
    if result.flagged:
        found.append(f"Flagged for treatment by {plain(result.rule, 60)}: {listed(result.flagged)}.")
    else:
        found.append("No group is flagged for treatment.")
    if not result.n_null and result.n_errors:
        found.append("No example was right, so there is no null from correct examples.")
    if result.top is not None and _leads_without_errors(result):
        found.append(
            f"{plain(result.top, 60)} also comes first on correct examples, so its place says more about the network "
            "than the errors."
        )
    return found


def _accuracy(result: Localization) -> str:
    """How often the model is wrong."""
    examples, one = _examples(result), result.n == 1
    if not result.n_errors:
        whole = examples if one else f"all {several(result.n, 'example')}"
        return f"The model is right on {whole} of the diagnose split, so there are no errors to localize."
    part = examples if one else f"{count(result.n_errors)} of {examples}"
    return f"The model is wrong on {part} of the diagnose split (accuracy {percent(result.accuracy)})."


def _examples(result: Localization) -> str:
    return "the only example" if result.n == 1 else f"the {several(result.n, 'example')}"


def winner(result: Localization) -> str:
    """Which group stands out, why, and how sure that is."""
    if result.top is None:
        return f"No group stands out. {plain(result.why)}".strip()
    sure = "" if result.confidence is None else f" (same group in {percent(result.confidence, 0)} of resamples)"
    why = f": {plain(result.why).removesuffix('.')}" if result.why else ""
    return f"{plain(result.top, 60)} stands out{why}{sure}."


def small_print(result: Localization) -> list[str]:
    """What it cost, and what could not be used."""
    said = []
    if result.cost:
        parts = sorted(result.cost.items(), key=lambda item: -item[1])
        listing = ", ".join(f"{plain(name, 40)} {number(passes, 2)}" for name, passes in parts if passes >= 0.005)
        said.append(
            f"Cost: {number(sum(result.cost.values()), 2)} forward and backward passes over "
            f"{_examples(result)} ({listing})."
        )
    if result.skipped:
        reasons = "; ".join(f"{plain(name, 40)}: {plain(why, 160)}" for name, why in result.skipped.items())
        said.append(f"Not used here: {reasons}.")
    return said


def _leads_without_errors(result: Localization) -> bool:
    """Whether the top group has the highest score on correct examples too."""
    null = profiles_of(result)["correct"]
    return bool(null.notna().any()) and null.idxmax() == result.top
